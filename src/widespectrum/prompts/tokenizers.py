"""How many tokens a text encoder makes of a text, and where in the text its limit falls.

Prompts are counted with the vocabulary that the encoder itself reads; where that is not at hand the count is not
known, and `Unavailable` says why.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import importlib.util
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from widespectrum.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["ENCODERS", "Encoder", "Unavailable", "clip_file_of_open_clip", "load_encoder", "read_tokenizer"]

ENCODERS: Mapping[str, Mapping[str, int]] = {
    "clip": {"CLIP": 77},
    "bert": {"BLIP": 35, "ImageReward": 35},
    "t5": {"Flux": 512, "Stable Diffusion 3": 256},
    "qwen": {},
}
"""The text encoders of the field: who reads through them, and after how many tokens (start and end included) it stops.

Qwen has no limit that a prompt could reach.
"""

_CLIP_FILE = "bpe_simple_vocab_16e6.txt.gz"
_CLIP_MERGES = 49152 - 256 - 2
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BERT_SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
_EXPECTED = (
    f"a folder with tokenizer.json, vocab.json and merges.txt, spiece.model or vocab.txt, or one of these files, "
    f"{_CLIP_FILE}, or qwen.tiktoken"
)
_LARGEST_FILE = 1 << 27

Span = tuple[int, int]
Merge = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Unavailable:
    """An encoder whose tokens cannot be counted here, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A text encoder's tokens.

    `added` tokens, such as start and end, stand around those of the text; `limits` is its line of `ENCODERS`, empty for
    a name that is not there; `vocabulary` is the file that was read and the beginning of its sha256.
    """

    name: str
    added: int
    vocabulary: str
    limits: Mapping[str, int] = field(default_factory=dict)
    _spans: Callable[[str], list[Span]]
    _lengths: Callable[[list[str]], list[int]]

    @property
    def limit(self) -> int | None:
        """The largest of `limits`, None where there is none."""
        return max(self.limits.values(), default=None)

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of every text, those that the encoder adds included, shape (N,)."""
        return np.array(self._lengths(list(texts)), dtype=np.int64) + self.added

    def token_ends(self, text: str) -> list[int]:
        """Where in `text` each of its own tokens ends (the offset after its last character), in order."""
        return [end for _, end in self._spans(text)]

    def first_lost_character(self, text: str, limit: int) -> int | None:
        """The offset of the first character that is cut off at `limit` tokens; None where all of the text fits.

        The tokens that the encoder adds are kept, so that `limit - added` are left for the text. A character of which
        only a part of the tokens fits is lost. White space is not.
        """
        if limit < self.added:
            raise InputError(f"the limit of {self.name!r} must be at least {self.added} tokens; got {limit}")
        lost = self._spans(text)[limit - self.added :]
        start = min((begin for begin, _ in lost), default=len(text))
        rest = text[start:].lstrip()
        return len(text) - len(rest) if rest else None


def load_encoder(name: str, path: Path | str | None = None) -> Encoder | Unavailable:
    """The text encoder `name`: its tokenizer from `path`, or for `clip` from an installed open_clip.

    `path` is a folder with tokenizer.json (nothing else of it is read), vocab.json and merges.txt (CLIP or Qwen),
    spiece.model (SentencePiece, an end token is added as T5 does), or vocab.txt (BERT); or such a file;
    or OpenAI's `bpe_simple_vocab_16e6.txt.gz`; or a `.tiktoken` file of Qwen. With a path any name may be used.
    CLIP's text is read as transformers and diffusers do: lower case, white space collapsed, HTML and quotes left alone.

    Raises InputError for a path that holds none of these, MissingExtraError where the library that reads it is missing.
    """
    if path is None:
        if name not in ENCODERS:
            raise InputError(f"unknown text encoder {name!r}: give its tokenizer, --tokenizer {name}=PATH")
        found = clip_file_of_open_clip() if name == "clip" else None
        if found is None:
            return Unavailable(name, f"its vocabulary was not at hand (--tokenizer {name}=PATH gives it)")
        if importlib.util.find_spec("tokenizers") is None:
            return Unavailable(name, "the package tokenizers is not installed: pip install 'widespectrum[tokens]'")
        path = found
    file = _file_of(name, Path(path))
    return _sentencepiece(name, file) if file.suffix == ".model" else _with_tokenizers(name, file)


def clip_file_of_open_clip() -> Path | None:
    """CLIP's vocabulary as open_clip carries it; open_clip itself is not imported."""
    spec = importlib.util.find_spec("open_clip")
    files = [Path(folder) / _CLIP_FILE for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((file for file in files if file.is_file()), None)


def _file_of(name: str, path: Path) -> Path:
    """The file to read: `path`, or the first in the folder `path` that is a tokenizer's."""
    if path.is_file():
        return path.with_name("vocab.json") if path.name == "merges.txt" else path
    if not path.is_dir():
        raise InputError(f"no tokenizer of {name!r} at {path}: expected {_EXPECTED}")
    for pattern in ("tokenizer.json", "vocab.json", "*.model", "*vocab.txt", _CLIP_FILE, "*.tiktoken"):
        if files := sorted(path.glob(pattern)):
            return files[0]
    raise InputError(f"{path} holds no tokenizer of {name!r}: expected {_EXPECTED}")


def _require_package(package: str, file: Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(f"{file} needs the package {package}: pip install 'widespectrum[tokens]'")


def _fingerprint(content: bytes, file: Path) -> str:
    return f"{file.name} sha256:{hashlib.sha256(content).hexdigest()[:16]}"


def _read(file: Path) -> bytes:
    """The file, unpacked where it is gzip; InputError where it is missing, damaged or much too large."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content: bytes = stream.read(_LARGEST_FILE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file} cannot be read as a vocabulary ({error}): copy it again") from error
    if len(content) > _LARGEST_FILE:
        raise InputError(f"{file} is larger than {_LARGEST_FILE >> 20} MB: no vocabulary is; expected {_EXPECTED}")
    return content


def _text(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error}): expected {_EXPECTED}") from error


def read_tokenizer(name: str, path: Path | str, *, guess: bool = False) -> Tokenizer:
    """The tokenizer at `path`, as `load_encoder` reads it, without limit or padding; `guess`: in doubt as Qwen's."""
    file, name = _file_of(name, Path(path)), "qwen" if guess else name
    _require_package("tokenizers", file)
    content = _read(file)
    if file.suffix == ".tiktoken":
        return _qwen_of_ranks(name, content, file)
    if file.name == "vocab.json":
        return _of_vocabulary_and_merges(name, content, file)
    if file.suffix == ".json":
        return _of_tokenizer_json(content, file)
    lines = _text(content, file).split("\n")
    return _clip_of_openai(lines, file) if "bpe_simple_vocab" in lines[0] else _bert(lines, file)


def _with_tokenizers(name: str, file: Path) -> Encoder:
    tokenizer = read_tokenizer(name, file)

    def spans(text: str) -> list[Span]:
        offsets: list[Span] = tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets

    def lengths(texts: list[str]) -> list[int]:
        return [len(each.ids) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    return Encoder(
        name=name,
        added=tokenizer.num_special_tokens_to_add(False),
        vocabulary=_fingerprint(_read(file), file),
        limits=ENCODERS.get(name, {}),
        _spans=spans,
        _lengths=lengths,
    )


def _sentencepiece(name: str, file: Path) -> Encoder:
    _require_package("sentencepiece", file)
    from sentencepiece import SentencePieceProcessor

    content = _read(file)
    try:
        processor = SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise InputError(f"{file} is not a SentencePiece model ({error}): copy it again") from error

    def spans(text: str) -> list[Span]:
        offsets: list[Span] = processor.encode(text, return_type="offset_mapping")["offsets"]
        return offsets

    return Encoder(
        name=name,
        added=1,
        vocabulary=_fingerprint(content, file),
        limits=ENCODERS.get(name, {}),
        _spans=spans,
        _lengths=lambda texts: [len(ids) for ids in processor.encode(texts)],
    )


def _of_tokenizer_json(content: bytes, file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    text = _text(content, file)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises a bare Exception
        raise InputError(
            f"{file} is not a tokenizer.json of the library tokenizers ({error}): copy it again"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _of_vocabulary_and_merges(name: str, content: bytes, file: Path) -> Tokenizer:
    merges_file = file.with_name("merges.txt")
    if not merges_file.is_file():
        raise InputError(f"no merges.txt beside {file}: expected {_EXPECTED}")
    try:
        vocabulary = json.loads(_text(content, file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not JSON ({error}): copy it again") from error
    lines = _text(_read(merges_file), merges_file).split("\n")
    merges = _pairs([line for line in lines if line and not line.startswith("#version")], merges_file)
    if not isinstance(vocabulary, dict) or not all(isinstance(number, int) for number in vocabulary.values()):
        raise InputError(f"{file} is not a vocabulary, expected an object of tokens and their numbers: copy it again")
    if _CLIP_START in vocabulary and _CLIP_END in vocabulary:
        return _clip(vocabulary, merges, file)
    if name.startswith("qwen"):
        return _byte_level(vocabulary, merges, file)
    raise InputError(
        f"{file} does not say how words are split, known are CLIP's and, for a name that begins with qwen, Qwen's way: "
        f"give a folder with tokenizer.json for {name!r}"
    )


def _pairs(lines: Sequence[str], file: Path) -> list[Merge]:
    """The two tokens of every line."""
    pairs: list[Merge] = []
    for line in lines:
        left, space, right = line.rstrip("\r").partition(" ")
        if not (left and space and right) or " " in right:
            raise InputError(f"{file}: expected two tokens to merge per line, got {line!r}: copy it again")
        pairs.append((left, right))
    return pairs


def _clip_of_openai(lines: list[str], file: Path) -> Tokenizer:
    """CLIP's tokenizer out of OpenAI's list of merges: bytes, bytes that end a word, merges, start and end."""
    merges = _pairs([line for line in lines[1 : _CLIP_MERGES + 1] if line], file)
    if len(merges) != _CLIP_MERGES:
        raise InputError(f"{file} is cut off: expected {_CLIP_MERGES} pairs, got {len(merges)}; copy it again")
    letters = list(_letters_of_bytes().values())
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(left + right for left, right in merges),
        _CLIP_START,
        _CLIP_END,
    ]
    return _clip({token: number for number, token in enumerate(tokens)}, merges, file)


def _clip(vocabulary: dict[str, int], merges: Sequence[Merge], file: Path) -> Tokenizer:
    from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors

    tokenizer = _bpe(vocabulary, merges, file, end_of_word_suffix="</w>", unk_token=_CLIP_END)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    start, end = ((token, vocabulary[token]) for token in (_CLIP_START, _CLIP_END))
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=False, add_prefix_space=False)
    # Found after normalization, as in the published files: in upper case, too.
    tokenizer.add_special_tokens([AddedToken(token, normalized=True) for token in (_CLIP_START, _CLIP_END)])
    return tokenizer


def _qwen_of_ranks(name: str, content: bytes, file: Path) -> Tokenizer:
    """Qwen's tokenizer out of lines "base64 rank"; a token's rank is the order in which it is merged."""
    if not (name.startswith("qwen") or file.name.startswith("qwen")):
        raise InputError(
            f"{file} does not say how words are split, and only Qwen's way is known: give a folder with tokenizer.json "
            f"for {name!r}, or a name that begins with qwen"
        )
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise InputError(f"{file}, line {number}: expected a token in base64 and its rank, got {line!r}") from None
    letters = _letters_of_bytes()
    if missing := [byte for byte in letters if bytes([byte]) not in ranks]:
        raise InputError(f"{file} has no token for {len(missing)} of 256 bytes: it is cut off, copy it again")

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [(spell(left), spell(right)) for left, right in _merges_of(ranks)]
    return _byte_level({spell(token): rank for token, rank in ranks.items()}, merges, file)


def _merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every way in which a token is two other tokens, in the order of the tokens' ranks."""
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [(ranks[left], ranks[right], left, right) for left, right in halves if left in ranks and right in ranks]
        yield from ((left, right) for *_, left, right in sorted(known))


def _byte_level(vocabulary: dict[str, int], merges: Sequence[Merge], file: Path) -> Tokenizer:
    """Qwen's pipeline."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    tokenizer = _bpe(vocabulary, merges, file, ignore_merges=True)
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    return tokenizer


def _bpe(vocabulary: dict[str, int], merges: Sequence[Merge], file: Path, **options: object) -> Tokenizer:
    from tokenizers import Tokenizer, models

    for left, right in merges:
        if not {left, right, left + right} <= vocabulary.keys():
            raise InputError(f"{file} does not hold what is merged, such as {left!r} and {right!r}: copy it again")
    return Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), **options))


def _bert(lines: list[str], file: Path) -> Tokenizer:
    """BERT's WordPiece; a vocabulary without a single upper-case word is one of lower case."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = [line.rstrip("\r") for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or not {"[UNK]", "[CLS]", "[SEP]"} <= set(vocabulary):
        raise InputError(
            f"{file} is not BERT's vocabulary: expected one token per line, each once, with [UNK], [CLS] and [SEP]"
        )
    lowercase = all(token == token.lower() for token in tokens if not token.startswith("["))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    end, start = ((token, vocabulary[token]) for token in ("[SEP]", "[CLS]"))
    tokenizer.post_processor = processors.BertProcessing(end, start)
    tokenizer.add_special_tokens([token for token in _BERT_SPECIAL if token in vocabulary])
    return tokenizer


def _letters_of_bytes() -> dict[int, str]:
    """The printable character that byte-level vocabularies write for each byte, in OpenAI's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
