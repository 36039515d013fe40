from __future__ import annotations

import base64
import gzip
import io
import json
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from widespectrum.errors import InputError
from widespectrum.prompts.tokenizers import ENCODERS, Encoder, Unavailable, load_encoder

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tokenizers"
# `make test` puts open_clip beside the environment, not into it: only its vocabulary is wanted.
OPEN_CLIP = Path(sys.prefix) / "share" / "open_clip"
CLIP_FILE = OPEN_CLIP / "open_clip" / "bpe_simple_vocab_16e6.txt.gz"

TEXTS = [
    "",
    "A man rides a horse.",
    "It's a cat's world, isn't it? We'll see; they'd say 12,345.67 — no…",
    "a café, naïve Ünïcode, ﬁne, 中文字, 日本語 😀👍🏽 e\u0301",
    "  lots \t of\n space  ",
    "'S 'T 'RE UPPER'S x'll a_b-c/d\\e (f) [g] {h} #i @j $5 100% ^ ~ ` & <b>",
    "“curly” it’s don´t, a\u00a0b",
    "x" * 150,
    "Ⅷ ² ½ İstanbul ẞ ΑΣ",
]

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
VOCABULARY = [
    *SPECIAL,
    *["a", "man", "rides", "horse", "##s", "cat", "'", "s", ".", ",", "it", "is", "##n", "##t", "中"],
]


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"{path.name} is not on this machine")


def loaded(name, path) -> Encoder:
    encoder = load_encoder(name, path)
    assert isinstance(encoder, Encoder)
    return encoder


def saved_clip(folder):
    """A CLIP folder with vocab.json and merges.txt, and transformers' own tokenizer out of it."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress(CLIP_FILE.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = sorted({letter for line in lines for letter in line.replace("</w>", "").replace(" ", "")})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(line.replace(" ", "") for line in lines)]
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


@needs(CLIP_FILE)
def test_clip_counts_what_transformers_counts_from_the_file_and_from_a_folder(tmp_path):
    oracle = saved_clip(tmp_path / "clip")
    expected = [len(ids) for ids in oracle(TEXTS)["input_ids"]]
    assert loaded("clip", tmp_path / "clip").count(TEXTS).tolist() == expected
    assert loaded("clip", tmp_path / "clip" / "merges.txt").count(TEXTS).tolist() == expected
    file = loaded("clip", CLIP_FILE)
    assert file.count(TEXTS).tolist() == expected
    assert file.count(TEXTS).dtype == np.int64
    assert (file.added, file.limit, file.count([]).shape) == (2, 77, (0,))
    assert file.vocabulary.startswith("bpe_simple_vocab_16e6.txt.gz sha256:67603cfd")


@needs(CLIP_FILE)
def test_clip_is_found_in_an_open_clip_that_is_not_imported(monkeypatch):
    monkeypatch.syspath_prepend(OPEN_CLIP)
    encoder = loaded("clip", None)
    assert encoder.count(["A man rides a horse."]) == [8]
    assert "open_clip" not in sys.modules


@pytest.mark.skipif(not DATA.exists(), reason="the published vocabularies are not on this machine")
def test_bert_counts_what_transformers_counts(tmp_path):
    from transformers import BertTokenizer

    content = (DATA / "bert-base-uncased-vocab.txt").read_bytes()
    (tmp_path / "vocab.txt").write_bytes(content)
    texts = [*TEXTS, "one [SEP] two [MASK]"]
    expected = [len(ids) for ids in BertTokenizer.from_pretrained(tmp_path)(texts)["input_ids"]]
    assert loaded("bert", tmp_path).count(texts).tolist() == expected
    assert loaded("mine", DATA / "bert-base-uncased-vocab.txt").count(texts).tolist() == expected


def test_bert_in_lower_case_and_in_both_cases(tmp_path):
    from transformers import BertTokenizer

    for name, words, lowercase in (("uncased", VOCABULARY, True), ("cased", [*VOCABULARY, "It"], False)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "vocab.txt").write_text("\n".join([*words, ""]), encoding="utf-8")
        oracle = BertTokenizer.from_pretrained(folder, do_lower_case=lowercase)
        encoder = loaded("bert", folder)
        assert encoder.count(TEXTS).tolist() == [len(ids) for ids in oracle(TEXTS)["input_ids"]]
        assert (encoder.added, encoder.limit) == (2, 35)
        assert encoder.token_ends("It MANS") == ([2, 6, 7] if lowercase else [2, 7])


def merged(piece, ranks):
    """Byte pair encoding by the book: merge the neighbors whose union has the lowest rank until none has any."""
    parts = [bytes([byte]) for byte in piece]
    while True:
        unions = [(ranks[a + b], n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not unions:
            return parts
        n = min(unions)[1]
        parts[n : n + 2] = [parts[n] + parts[n + 1]]


def by_the_book(text, ranks):
    import regex

    from widespectrum.prompts.tokenizers import _QWEN_WORDS

    words = regex.findall(_QWEN_WORDS, unicodedata.normalize("NFC", text))
    return sum(len([word] if word.encode() in ranks else merged(word.encode(), ranks)) for word in words)


def write_ranks(path, ranks):
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items()))
    return path


RANKS = [bytes([byte]) for byte in range(256)] + b"in|ri| a|de|rid|ride| m|an| man|is|\xf0\x9f|\xf0\x9f\x98".split(b"|")
RANKS = {token: rank for rank, token in enumerate(dict.fromkeys(RANKS))}


def test_qwen_merges_by_rank(tmp_path):
    encoder = loaded("qwen", write_ranks(tmp_path / "qwen.tiktoken", RANKS))
    assert encoder.count(TEXTS).tolist() == [by_the_book(text, RANKS) for text in TEXTS]
    assert (encoder.added, encoder.limit) == (0, None)
    assert encoder.token_ends("a man rides 😀") == [1, 5, 6, 10, 11, 12, 13, 13]


@needs(DATA / "qwen.tiktoken")
def test_qwen_s_own_ranks():
    encoder = loaded("qwen2.5-vl", DATA / "qwen.tiktoken")
    ranks = dict(line.split() for line in (DATA / "qwen.tiktoken").read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in ranks.items()}
    assert encoder.count(TEXTS).tolist() == [by_the_book(text, ranks) for text in TEXTS]
    # Every digit is a token; a space belongs to the word after it; line ends stand together.
    assert encoder.token_ends("a horse 123\n\n") == [1, 7, 8, 9, 10, 11, 13]


@pytest.fixture(scope="module")
def spiece(tmp_path_factory):
    from sentencepiece import SentencePieceTrainer

    folder = tmp_path_factory.mktemp("t5")
    sentences = ["a man rides a horse at night", "the café is blurred and tilted", "it's noise, grain and 12 cats"] * 30
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=50,
        minloglevel=2,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        hard_vocab_limit=False,
        num_threads=1,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    return folder


def test_sentencepiece_and_its_conversion_agree(spiece, tmp_path):
    from transformers import T5Tokenizer

    texts = ["", "a man rides a horse", "it's 12 cats, and the café is tilted", "a  man   at night"]
    oracle = T5Tokenizer.from_pretrained(spiece)
    expected = [len(ids) for ids in oracle(texts)["input_ids"]]
    encoder = loaded("t5", spiece)
    assert encoder.count(texts).tolist() == expected
    assert (encoder.added, encoder.limit, dict(encoder.limits)["Stable Diffusion 3"]) == (1, 512, 256)
    oracle.backend_tokenizer.enable_truncation(3)
    oracle.backend_tokenizer.enable_padding(length=3)
    oracle.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    converted = loaded("t5", tmp_path)
    assert converted.count(texts).tolist() == expected
    assert (converted.added, converted.token_ends(texts[1])[-1]) == (1, len(texts[1]))


@pytest.fixture
def words(tmp_path):
    """An encoder that reads BERT's way and has few words."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return loaded("bert", tmp_path)


def test_the_first_lost_character(words):
    text = "a man rides a horse."
    assert words.token_ends(text) == [1, 5, 11, 13, 19, 20]
    lost = [words.first_lost_character(text, limit) for limit in range(2, 10)]
    assert lost == [0, 2, 6, 12, 14, 19, None, None]
    assert words.first_lost_character("a man \n", 4) is None
    assert words.first_lost_character("", 2) is None
    with pytest.raises(InputError, match=r"limit of 'bert' must be at least 2 tokens; got 1"):
        words.first_lost_character(text, 1)


def test_a_character_is_lost_with_a_part_of_its_tokens(tmp_path):
    encoder = loaded("qwen", write_ranks(tmp_path / "qwen.tiktoken", RANKS))
    text = "a man 😀 x"
    ends = encoder.token_ends(text)
    assert ends == [1, 5, 6, 7, 7, 8, 9]
    assert encoder.first_lost_character(text, 4) == 6
    assert encoder.first_lost_character(text, 5) == 8
    assert encoder.first_lost_character("a man", 1) == 2  # the space before it is not counted as lost


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "clip"])
def test_no_vocabulary_at_hand(name):
    encoder = load_encoder(name)
    assert encoder == Unavailable(name, f"its vocabulary was not at hand (--tokenizer {name}=PATH gives it)")


def test_an_unknown_encoder_needs_a_path():
    with pytest.raises(InputError, match="unknown text encoder 'gemma': give its tokenizer, --tokenizer gemma=PATH"):
        load_encoder("gemma")


CUT_OFF = gzip.compress(b"#version\n" * 1000)[:-20]
VOCAB_JSON = json.dumps({"a": 0, "b": 1}).encode()


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("t5", {}, r"holds no tokenizer of 't5': expected a folder with tokenizer.json"),
        ("t5", {"tokenizer.json": b"{}"}, r"tokenizer.json is not a tokenizer.json of the library tokenizers \("),
        ("t5", {"tokenizer.json": b"\xff"}, r"tokenizer.json is not UTF-8"),
        ("t5", {"spiece.model": b"nonsense"}, r"spiece.model is not a SentencePiece model"),
        ("bert", {"vocab.txt": b"a\nb\n"}, r"vocab.txt is not BERT's vocabulary: .* with \[UNK\], \[CLS\] and \[SEP\]"),
        ("bert", {"vocab.txt": b"[UNK]\n[CLS]\n[SEP]\na\na"}, r"one token per line, each once"),
        ("clip", {"vocab.json": VOCAB_JSON}, r"no merges.txt beside .*vocab.json"),
        ("clip", {"vocab.json": b"[", "merges.txt": b""}, r"vocab.json is not JSON"),
        ("clip", {"vocab.json": b"[]", "merges.txt": b""}, r"vocab.json is not a vocabulary"),
        ("gpt", {"vocab.json": VOCAB_JSON, "merges.txt": b"a b"}, r"does not say how words are split, .* for 'gpt'"),
        ("qwen", {"vocab.json": VOCAB_JSON, "merges.txt": b"a b c"}, r"merges.txt: expected two tokens .* got 'a b c'"),
        (
            "qwen",
            {"vocab.json": VOCAB_JSON, "merges.txt": b"a b"},
            r"does not hold what is merged, such as 'a' and 'b'",
        ),
        ("clip", {"bpe_simple_vocab_16e6.txt.gz": CUT_OFF}, r"cannot be read as a vocabulary \(.*: copy it again"),
        ("gpt", {"cl100k.tiktoken": b"IQ== 0\n"}, r"only Qwen's way is known: .* for 'gpt'"),
        ("qwen", {"a.tiktoken": b"IQ== 0\nIg==\n"}, r"a.tiktoken, line 2: expected a token in base64 and its rank"),
        ("qwen", {"a.tiktoken": b"IQ== 0\n"}, r"a.tiktoken has no token for 255 of 256 bytes"),
    ],
)
def test_what_cannot_be_read_is_named(name, files, expected, tmp_path):
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=expected):
        load_encoder(name, tmp_path)


def test_a_list_of_merges_that_was_cut_off(tmp_path):
    path = tmp_path / "bpe_simple_vocab_16e6.txt"
    path.write_text('"bpe_simple_vocab_16e6.txt#version: 0.2\ni n\nt h\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"is cut off: expected 48894 pairs, got 2"):
        load_encoder("clip", path)
    with pytest.raises(InputError, match=r"no tokenizer of 'clip' at .*absent: expected a folder"):
        load_encoder("clip", tmp_path / "absent")
