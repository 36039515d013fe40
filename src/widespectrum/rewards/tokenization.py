"""How a prompt becomes the ids that a reward model reads: the official tokenizer of each model."""

from __future__ import annotations

import html
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from widespectrum.errors import InputError, MissingExtraError, WideSpectrumError
from widespectrum.hub import download_snapshot
from widespectrum.prompts.tokenizers import clip_file_of_open_clip, read_tokenizer
from widespectrum.types import digest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["QWEN_SPECIAL", "Style", "TextTokenizer", "load_bert", "load_clip_bpe", "load_qwen", "no_unicode"]

Style = Literal["openai", "hpsv2", "transformers"]
"""Whose tokenizer around CLIP's vocabulary: OpenAI's, the one inside hpsv2, or transformers'."""

QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|Reward|>",
)
"""What HPSv3's tokenizer reads as one special token: the ids 151643 to 151657, in this order."""

_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL_WORDS = {"openai": (_CLIP_START, _CLIP_END), "hpsv2": ("<start_of_text>", "<end_of_text>")}
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_BERT_ADDED = ("[DEC]", "[ENC]")
_WORDS_KEPT = 1 << 16
_HUB = {
    "clip": ("openai/clip-vit-large-patch14", ("tokenizer.json",)),
    "bert": ("google-bert/bert-base-uncased", ("vocab.txt",)),
    "qwen": ("Qwen/Qwen2-VL-7B-Instruct", ("tokenizer.json",)),
}

_KINDS = {
    "clip": "CLIP's BPE",
    "bert": "BERT's vocabulary",
    "qwen": "Qwen's byte-level BPE",
    "t5": "a SentencePiece vocabulary",
}
_GIVE = {
    "clip": "give bpe_simple_vocab_16e6.txt.gz, or the tokenizer of openai/clip-vit-large-patch14, as tokenizer",
    "bert": "give vocab.txt of bert-base-uncased as tokenizer",
    "qwen": "give the tokenizer of Qwen2-VL as tokenizer",
}

Ids = list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """An official tokenizer. `around` are the ids that it puts before and after a text, `pad` is what it fills up with.

    An empty text is the ids `around` and nothing else. `vocabulary` is a digest of the tokens and their ids, the same
    whatever kind of file they came from. `size` is 1 + the highest id.
    """

    around: tuple[int, ...]
    pad: int
    vocabulary: str
    size: int
    _read: Callable[[list[str]], list[Ids]]
    _special: Callable[[str], bool]

    def ids(self, text: str) -> Ids:
        """The ids of a text, those `around` it included, before anything is cut off."""
        return self._all([text])[0]

    def batch(self, texts: Sequence[str], length: int) -> NDArray[np.int64]:
        """Shape (N, length): of a long text the end is cut off, not the last of `around`; a short one gets `pad`."""
        rows = np.full((len(texts), length), self.pad, dtype=np.int64)
        for row, ids in zip(rows, self._all(texts), strict=True):
            kept = ids if len(ids) <= length else ids[: length - len(self.around[1:])] + list(self.around[1:])
            row[: len(kept)] = kept
        return rows

    def count(self, texts: Sequence[str]) -> list[int]:
        """Ids of every text, those `around` it included, before anything is cut off."""
        return [len(ids) for ids in self._all(texts)]

    def has_special(self, texts: Sequence[str]) -> list[bool]:
        """Whether the official tokenizer reads a part of the text as a special token."""
        return [self._special(text) for text in texts]

    def _all(self, texts: Sequence[str]) -> list[Ids]:
        before, after = list(self.around[:1]), list(self.around[1:])
        return [before + ids + after for ids in self._read(list(texts))]


def load_clip_bpe(path: Path | str | None, style: Style) -> TextTokenizer:
    """CLIP's tokenizer from OpenAI's file, or from a folder or file of transformers.

    Without a path from an installed open_clip, else from the Hub. `openai` and `hpsv2` mend the text with ftfy,
    unescape HTML twice, collapse white space and lower the case; they fill up with 0. They differ in which strings are
    read as start and end. `transformers` composes unicode (NFC), collapses white space, lowers the case, and fills up
    with the end. Raises InputError, MissingExtraError, HubError.
    """
    if style not in get_args(Style):
        raise InputError(f"unknown style of tokenizer {style!r}: expected {', '.join(get_args(Style))}")
    tokenizer = _read("clip", path or clip_file_of_open_clip() or _from_hub("clip"))
    start, end = _ids_of(tokenizer, (_CLIP_START, _CLIP_END), path)
    read: Callable[[list[str]], list[Ids]] = partial(_encode, tokenizer)
    if style != "transformers":
        _require("ftfy", "regex")
        read = _openai_reader(tokenizer, dict(zip(_SPECIAL_WORDS[style], (start, end), strict=True)))

    def special(text: str) -> bool:
        return any(number in (start, end) for number in read([text])[0])

    return TextTokenizer(
        around=(start, end),
        pad=end if style == "transformers" else 0,
        vocabulary=_digest(tokenizer),
        size=_size(tokenizer),
        _read=read,
        _special=special,
    )


def load_bert(path: Path | str | None) -> TextTokenizer:
    """BERT's tokenizer with [DEC] and [ENC] added after its vocabulary, as BLIP and ImageReward add them.

    `path` is a list of tokens (vocab.txt or any other name), a tokenizer.json, or a folder with one of them; without
    a path the Hub's bert-base-uncased. Raises InputError, MissingExtraError, HubError.
    """
    tokenizer = _read("bert", path or _from_hub("bert"))
    start, end, pad = _ids_of(tokenizer, ("[CLS]", "[SEP]", "[PAD]"), path)
    tokenizer.add_special_tokens(list(_BERT_ADDED))
    special = _contains([token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special])
    read = partial(_encode, tokenizer)
    return TextTokenizer(
        around=(start, end),
        pad=pad,
        vocabulary=_digest(tokenizer),
        size=_size(tokenizer),
        _read=read,
        _special=special,
    )


def load_qwen(path: Path | str | None) -> TextTokenizer:
    """Qwen2's tokenizer, with which every text is only text: `<|im_end|>` in it becomes several ordinary ids.

    Nothing is put around a text. `path` is a tokenizer.json, vocab.json beside merges.txt, a .tiktoken file, or a
    folder with one of them; without a path Qwen2-VL's on the Hub. Raises InputError, MissingExtraError, HubError.
    """
    tokenizer = _without_added(_read("qwen", path or _from_hub("qwen")))
    read = partial(_encode, tokenizer)
    special = _contains(QWEN_SPECIAL)
    return TextTokenizer(
        around=(), pad=151643, vocabulary=_digest(tokenizer), size=_size(tokenizer), _read=read, _special=special
    )


def _read(kind: str, path: Path | str) -> Tokenizer:
    """The tokenizer at `path`; InputError where it looks like one of another kind."""
    tokenizer = read_tokenizer(kind, path, guess=True)
    like = _like(tokenizer)
    if like not in (None, kind):
        raise InputError(f"the tokenizer {path} looks like {_KINDS[like]}, expected {_KINDS[kind]}: {_GIVE[kind]}")
    return tokenizer


def _like(tokenizer: Tokenizer) -> str | None:
    """The kind of a tokenizer, or None where that cannot be told."""
    model, vocabulary = tokenizer.model, tokenizer.get_vocab()
    name = type(model).__name__
    if name == "BPE":
        ends = model.end_of_word_suffix == "</w>" or "a</w>" in vocabulary or _CLIP_START in vocabulary
        return "clip" if ends else "qwen"
    return {"WordPiece": "bert", "Unigram": "t5"}.get(name)


def _size(tokenizer: Tokenizer) -> int:
    return 1 + max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1)


def _digest(tokenizer: Tokenizer) -> str:
    """16 hexadecimal digits of the tokens of the vocabulary and their ids."""
    return digest(tokenizer.get_vocab(with_added_tokens=False))[:16]


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[Ids]:
    try:
        return [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    except TypeError:
        raise InputError(no_unicode(texts)) from None


def no_unicode(texts: Sequence[str]) -> str:
    """What to say of texts that no tokenizer reads: it quotes the first that is no text in Unicode."""
    bad = next((text for text in texts if any("\ud800" <= letter <= "\udfff" for letter in text)), "")
    return f"the prompt {bad[:60]!r} holds half of a surrogate pair, which no tokenizer reads: write it in UTF-8 again"


def _openai_reader(tokenizer: Tokenizer, special: dict[str, int]) -> Callable[[list[str]], list[Ids]]:
    """OpenAI's way to cut a text into words, `special` ones left whole; each word is then merged for itself."""
    import regex
    from tokenizers import pre_tokenizers

    # Case is ignored although texts are in lower case: the long s of 'ſ is an s then.
    words = regex.compile("|".join([*map(regex.escape, special), _WORDS]), regex.IGNORECASE)
    letters, model = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), tokenizer.model

    @lru_cache(_WORDS_KEPT)
    def merged(word: str) -> tuple[int, ...]:
        if word in special:
            return (special[word],)
        return tuple(token.id for piece, _ in letters.pre_tokenize_str(word) for token in model.tokenize(piece))

    def read(texts: list[str]) -> list[Ids]:
        return [[number for word in words.findall(_mended(text)) for number in merged(word)] for text in texts]

    return read


def _mended(text: str) -> str:
    """The text as OpenAI's tokenizer cleans it."""
    # ftfy changes nothing in printable ASCII without entities, and is slow.
    if not (text.isascii() and text.isprintable()) or "&" in text:
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _contains(strings: Sequence[str]) -> Callable[[str], bool]:
    return lambda text: any(string in text for string in strings)


def _ids_of(tokenizer: Tokenizer, tokens: Sequence[str], path: Path | str | None) -> list[int]:
    found = [(token, tokenizer.token_to_id(token)) for token in tokens]
    if missing := [token for token, number in found if number is None]:
        where = path or "that was found"
        raise InputError(f"the tokenizer {where} has no {', '.join(missing)}: give the one of the model")
    return [number for _, number in found if number is not None]


def _without_added(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer without the tokens that were added to its vocabulary."""
    from tokenizers import Tokenizer as Library

    if not tokenizer.get_added_tokens_decoder():
        return tokenizer
    return Library.from_str(json.dumps({**json.loads(tokenizer.to_str()), "added_tokens": []}))


def _from_hub(name: str) -> Path:
    repo, patterns = _HUB[name]
    try:
        return download_snapshot(repo, "model", patterns=patterns)
    except WideSpectrumError as error:
        raise type(error)(
            f"the tokenizer of {repo} could not be had from the Hub; {str(error).removesuffix('.')} (offline, give a "
            "local file or folder as tokenizer=...)"
        ) from error


def _require(*packages: str) -> None:
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise MissingExtraError(f"this tokenizer needs {', '.join(missing)}: pip install 'widespectrum[rewards]'")
