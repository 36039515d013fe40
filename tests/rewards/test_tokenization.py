"""Byte pair encoding by the book, transformers' own tokenizers, and ids that the official programs gave."""

from __future__ import annotations

import base64
import gzip
import html
import json
import sys
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.rewards.awkward import PROMPTS
from widespectrum.errors import InputError
from widespectrum.rewards import tokenization
from widespectrum.rewards.tokenization import QWEN_SPECIAL, load_bert, load_clip_bpe, load_qwen

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tokenizers"
BERT, QWEN = DATA / "bert-base-uncased-vocab.txt", DATA / "qwen.tiktoken"
CLIP_FILE = Path(sys.prefix) / "share" / "open_clip" / "open_clip" / "bpe_simple_vocab_16e6.txt.gz"

TEXTS = [
    *PROMPTS,
    "It's a cat's world, isn't it? We'll see; they'd say 12,345.67 — no…",
    "'S 'T 'RE UPPER'S x'll ''s 'ſ x'ſt a_b-c/d\\e (f) [g] {h} #i @j $5 100% ^ ~ ` & <b>",
    "“curly” it’s don´t, a\u00a0b \u3000 ｆｕｌｌ",
    "line\r\n\ttab\x0b\x0c\x1c \x85 \u2028 end\x1b[31m",
    "x" * 300,
    "antidisestablishmentarianism" * 20,
    "!!<|endoftext|> <|endoftext|><|endoftext|> x<|startoftext|>y <|EndOfText|>",
    "!<end_of_text> <start_of_text><END_OF_TEXT>",
    "[DEC] a[SEP]b [ENC] [sep] [CLS][MASK] [PAD]",
    "&amp;amp;lt; &nbsp; &#28; &NotAnEntity; a<b &lt;",
    *(" ".join(["cat"] * count) for count in (32, 33, 34, 74, 77)),
]


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"{path.name} is not on this machine")


@cache
def clip_merges():
    lines = gzip.decompress(CLIP_FILE.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    return {tuple(line.split()): rank for rank, line in enumerate(lines)}


@cache
def clip_ids():
    """The number of every token: bytes in OpenAI's order, bytes that end a word, merges, start, end."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = [*map(chr, shown), *(chr(256 + number) for number in range(len(hidden)))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in clip_merges())]
    return dict(zip([*shown, *hidden], letters, strict=True)), {token: number for number, token in enumerate(tokens)}


def by_the_book(text, start, end):
    """OpenAI's ids: clean, cut into words, then merge the neighbors of lowest rank until none can be merged."""
    import ftfy
    import regex

    letters, ids = clip_ids()
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    text = regex.sub(r"\s+", " ", text).strip().lower()
    pattern = f"{regex.escape(start)}|{regex.escape(end)}" + r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
    found = [49406]
    for word in regex.findall(pattern, text, regex.IGNORECASE):
        if word in (start, end):
            found.append(49406 if word == start else 49407)
            continue
        parts = [letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while ranked := [(clip_merges()[pair], n) for n, pair in enumerate(pairwise(parts)) if pair in clip_merges()]:
            n = min(ranked)[1]
            parts[n : n + 2] = ["".join(parts[n : n + 2])]
        found += [ids[part] for part in parts]
    return [*found, 49407]


STRINGS = {"openai": ("<|startoftext|>", "<|endoftext|>"), "hpsv2": ("<start_of_text>", "<end_of_text>")}


@needs(CLIP_FILE)
@pytest.mark.parametrize("style", STRINGS)
def test_openai_and_hpsv2(style):
    tokenizer = load_clip_bpe(CLIP_FILE, style)
    expected = [by_the_book(text, *STRINGS[style]) for text in TEXTS]
    assert [tokenizer.ids(text) for text in TEXTS] == expected
    assert tokenizer.count(TEXTS) == [len(ids) for ids in expected]
    rows = tokenizer.batch(TEXTS, 77)
    assert (rows.shape, rows.dtype) == ((len(TEXTS), 77), np.int64)
    for row, ids in zip(rows.tolist(), expected, strict=True):
        assert row == ([*ids[:76], 49407] if len(ids) > 77 else ids + [0] * (77 - len(ids)))
    assert tokenizer.has_special(TEXTS) == [any(number > 49405 for number in ids[1:-1]) for ids in expected]


@needs(CLIP_FILE)
def test_ids_that_the_official_programs_gave():
    openai, hpsv2, hf = (load_clip_bpe(CLIP_FILE, style) for style in ("openai", "hpsv2", "transformers"))
    for tokenizer in (openai, hpsv2, hf):
        assert tokenizer.ids("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]
        assert tokenizer.ids("") == tokenizer.ids(" \n") == [49406, 49407]
        assert tokenizer.batch([], 77).shape == (0, 77)
    # Only a word of its own is special to OpenAI; to transformers it is wherever it stands.
    marked = ["a <|endoftext|> b", "!<|endoftext|>", "<end_of_text>", "!<end_of_text>", "<|EndOfText|>", "a"]
    assert openai.has_special(marked) == [True, False, False, False, True, False]
    assert hpsv2.has_special(marked) == [False, False, True, False, False, False]
    assert hf.has_special(marked) == [True, True, False, False, True, False]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    ids = {**clip_ids()[1], "<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in clip_merges()), ""])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    return folder


@needs(CLIP_FILE)
def test_transformers_clip(clip_folder, tmp_path):
    from transformers import CLIPTokenizerFast

    oracle = CLIPTokenizerFast.from_pretrained(clip_folder)
    oracle.save_pretrained(tmp_path)
    # Upper case is not read as special when transformers 5 builds the tokenizer; as published, it is.
    texts = [text for text in TEXTS if "EndOfText" not in text]
    expected = oracle(texts, padding="max_length", truncation=True, max_length=77, return_tensors="np")["input_ids"]
    for path in (CLIP_FILE, clip_folder, tmp_path):
        tokenizer = load_clip_bpe(path, "transformers")
        np.testing.assert_array_equal(tokenizer.batch(texts, 77), expected)
        assert tokenizer.count(texts) == [len(ids) for ids in oracle(texts, verbose=False)["input_ids"]]
    saved = load_clip_bpe(tmp_path / "tokenizer.json", "openai")
    assert saved.ids(TEXTS[12]) == by_the_book(TEXTS[12], *STRINGS["openai"])


@needs(BERT)
@pytest.mark.parametrize("kind", ["file", "folder", "json"])
def test_bert(kind, tmp_path):
    from transformers import BertTokenizerFast

    (tmp_path / "vocab.txt").write_bytes(BERT.read_bytes())
    oracle = BertTokenizerFast.from_pretrained(tmp_path)
    oracle.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    if kind == "json":
        oracle.save_pretrained(tmp_path)
    if kind == "folder":
        (tmp_path / "vocab.txt").rename(tmp_path / BERT.name)
    tokenizer = load_bert(BERT if kind == "file" else tmp_path)
    assert tokenizer.ids("[DEC][ENC]") == [101, 30522, 30523, 102]
    expected = oracle(TEXTS, padding="max_length", truncation=True, max_length=35, return_tensors="np")["input_ids"]
    np.testing.assert_array_equal(tokenizer.batch(TEXTS, 35), expected)
    assert tokenizer.count(TEXTS) == [len(ids) for ids in oracle(TEXTS, verbose=False)["input_ids"]]
    marked = ["a[SEP]b", "[ENC]", "[sep] [dec]", "[UNK] 中", "中 ☂ \ue000", ""]
    assert tokenizer.has_special(marked) == [True, True, False, True, False, False]


def merged(word, ranks):
    """The numbers of the parts that are left when the neighbors whose union has the lowest rank are merged."""
    parts = [bytes([byte]) for byte in word]
    while ranked := [(ranks[a + b], n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
        n = min(ranked)[1]
        parts[n : n + 2] = [parts[n] + parts[n + 1]]
    return [ranks[part] for part in parts]


QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_ranks(path):
    tokens = [*(bytes([byte]) for byte in range(256)), b"in", b" a", b"im", b"en", b"end", b"<|", b"|>"]
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens)))
    return path


@pytest.mark.parametrize("published", [pytest.param(True, marks=needs(QWEN)), False])
def test_qwen_reads_everything_as_text(published, tmp_path):
    import regex

    path = QWEN if published else write_ranks(tmp_path / "qwen.tiktoken")
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, path.read_bytes().splitlines())}
    tokenizer = load_qwen(path)
    for text in [*TEXTS, *QWEN_SPECIAL, "a<|im_end|>\n<|im_start|>system\n\n x"]:
        words = regex.findall(QWEN_WORDS, unicodedata.normalize("NFC", text))
        assert tokenizer.ids(text) == [number for word in words for number in merged(word.encode(), ranks)]
    assert tokenizer.has_special([*QWEN_SPECIAL, "a<|im_end|>b"]) == [True] * 16
    assert tokenizer.has_special(["<|reward|> <im_end>", ""]) == [False, False]
    assert tokenizer.count(["", "a"]) == [0, 1]


def test_added_tokens_of_a_qwen_folder_are_text_too(tmp_path):
    from tokenizers import AddedToken

    from widespectrum.prompts.tokenizers import read_tokenizer

    path = write_ranks(tmp_path / "qwen.tiktoken")
    made = read_tokenizer("qwen", path)
    made.add_special_tokens(["<|im_end|>"])
    made.add_tokens([AddedToken("<tool>", special=False)])
    (tmp_path / "base").mkdir()
    made.save(str(tmp_path / "base" / "tokenizer.json"))
    text = "a <|im_end|> <tool> in"
    assert len(made.encode(text).ids) < len(load_qwen(path).ids(text))
    assert load_qwen(tmp_path / "base").ids(text) == load_qwen(path).ids(text)


@needs(CLIP_FILE)
def test_half_a_character():
    with pytest.raises(InputError, match=r"the prompt 'a\\ud800' holds half of a surrogate pair"):
        load_clip_bpe(CLIP_FILE, "transformers").count(["a", "a\ud800"])
    assert len(load_clip_bpe(CLIP_FILE, "openai").ids("a\ud800")) == 4  # which ftfy replaces


@pytest.mark.parametrize("load", [lambda: load_bert(None), lambda: load_qwen(None)])
def test_nothing_is_downloaded_where_the_hub_is_not(load, monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise InputError("no Hub here.")

    monkeypatch.setattr(tokenization, "download_snapshot", unreachable)
    with pytest.raises(InputError, match=r"tokenizer of .* no Hub here \(offline, give a local file or folder as tok"):
        load()


CLIP, VOCABULARY, BYTES = "CLIP's BPE", "BERT's vocabulary", "Qwen's byte-level BPE"


@needs(CLIP_FILE)
@pytest.mark.parametrize("kind", ["clip", "clip json", "bert", "bert json", "qwen", "qwen files", "t5"])
def test_a_tokenizer_of_another_kind_is_named(kind, tmp_path, clip_folder):
    from tokenizers import Tokenizer, models

    from widespectrum.prompts.tokenizers import read_tokenizer

    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n")
    ranks = write_ranks(tmp_path / "ranks.tiktoken")
    if kind == "qwen files":
        path = tmp_path / "vocab.json"
        path.write_text(json.dumps(read_tokenizer("qwen", ranks).get_vocab()))
        (tmp_path / "merges.txt").write_text("i n\n")
    elif kind in ("clip json", "bert json", "t5"):
        made = read_tokenizer("any", clip_folder if kind == "clip json" else path)
        made = Tokenizer(models.Unigram([("a", 0.0)], 0)) if kind == "t5" else made
        path = tmp_path / "tokenizer.json"
        made.save(str(path))
    path = CLIP_FILE if kind == "clip" else ranks if kind == "qwen" else path
    looks = {"clip": CLIP, "bert": VOCABULARY, "qwen": BYTES, "t5": "a SentencePiece vocabulary"}[kind.split()[0]]
    loads = {CLIP: lambda: load_clip_bpe(path, "transformers"), VOCABULARY: lambda: load_bert(path)}
    loads[BYTES] = lambda: load_qwen(path)
    for expected, load in loads.items():
        if looks == expected:
            assert load().ids("a")
            continue
        with pytest.raises(InputError, match=f"^the tokenizer {path} looks like {looks}, expected {expected}: give "):
            load()


def test_what_is_no_tokenizer_of_the_model(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\na\n")
    with pytest.raises(InputError, match=r"vocab.txt has no \[PAD\]: give the one of the model"):
        load_bert(tmp_path / "vocab.txt")
    with pytest.raises(InputError, match="unknown style of tokenizer 'open'"):
        load_clip_bpe(tmp_path, "open")
    with pytest.raises(InputError, match=r"no tokenizer of 'qwen' at .*absent: expected a folder"):
        load_qwen(tmp_path / "absent")
