"""Token counts and what lies past an encoder's limit, with a vocabulary in which every word is one token."""

import pytest

from widespectrum.errors import InputError
from widespectrum.prompts.lengths import LENGTH_COLUMNS, add_lengths, open_encoders
from widespectrum.prompts.tokenizers import Encoder, Unavailable

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


@pytest.fixture
def vocabulary(tmp_path):
    """A vocabulary of BERT's kind: its start and end tokens, the words w, blur and gloom, and the piece ##s."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, "w", "blur", "gloom", "##s", ""]), encoding="utf-8")
    return path


def row(prompt, **effects):
    return {"wide_spectrum_prompt": prompt, "dimensions": list(effects), "effects": list(effects.values())}


def lengths(rows, *tokenizers):
    add_lengths(rows, open_encoders(tokenizers))
    return rows


def test_tokens_are_those_of_the_text_and_two_around_it(vocabulary):
    (made,) = lengths([row("w w blurs", clarity="blurs")], f"bert={vocabulary}", f"mine={vocabulary}")
    assert (made["words"], made["tokens_bert"], made["tokens_mine"]) == (3, 6, 6)
    assert made["past_bert_35"] == []
    assert set(made) == {*row(""), *LENGTH_COLUMNS, "tokens_mine"}


@pytest.mark.parametrize(
    ("name", "before", "lost"),
    # 35 tokens with start and end hold 33 words, 77 hold 75; the phrase "blur gloom" has two
    [
        ("bert", 31, []),
        ("bert", 32, ["clarity"]),
        ("bert", 40, ["clarity"]),
        ("clip", 73, []),
        ("clip", 74, ["clarity"]),
    ],
)
def test_a_phrase_is_lost_where_its_last_token_does_not_fit(vocabulary, name, before, lost):
    prompt = "gloom " + "w " * (before - 1) + "blur gloom w"
    (made,) = lengths([row(prompt, clarity="blur gloom", emotion="gloom")], f"{name}={vocabulary}")
    assert made[f"tokens_{name}"] == before + 5
    assert made["past_bert_35" if name == "bert" else "past_clip_77"] == lost


def test_a_word_of_which_a_piece_fits_is_lost(vocabulary):
    for before, lost in ((31, []), (32, ["clarity"])):
        (made,) = lengths([row("w " * before + "blurs", clarity="blurs")], f"bert={vocabulary}")
        assert made["past_bert_35"] == lost


def test_a_phrase_that_is_not_there_is_not_past_the_limit(vocabulary):
    rows = [row("w " * 40, clarity="", emotion="gloom"), row("", clarity="")]
    assert [made["past_bert_35"] for made in lengths(rows, f"bert={vocabulary}")] == [[], []]


def test_without_a_vocabulary_the_count_is_unknown_and_the_reason_stands_there(vocabulary):
    encoders = open_encoders([f"clip={vocabulary}"])
    assert {name: type(encoder) for name, encoder in encoders.items()} == {
        "clip": Encoder,
        "bert": Unavailable,
        "t5": Unavailable,
        "qwen": Unavailable,
    }
    rows = [row("w blur", clarity="blur"), row("w")]
    add_lengths(rows, encoders)
    for made in rows:
        assert [made[name] for name in ("tokens_bert", "tokens_t5", "tokens_qwen", "past_bert_35")] == [None] * 4
        assert made["past_clip_77"] == []
        assert made["tokens_note"] == "; ".join(
            f"{name}: its vocabulary was not at hand (--tokenizer {name}=PATH gives it)"
            for name in ("bert", "t5", "qwen")
        )
    (known,) = lengths([row("w")], *(f"{name}={vocabulary}" for name in ("clip", "bert", "t5", "qwen")))
    assert known["tokens_note"] == ""


def test_no_rows(vocabulary):
    assert lengths([], f"bert={vocabulary}") == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["bert"], "expected --tokenizer NAME=PATH with a name in lower-case letters, got 'bert'"),
        (["bert="], "expected --tokenizer NAME=PATH with a name in lower-case letters, got 'bert='"),
        (["BERT={}"], "expected --tokenizer NAME=PATH with a name in lower-case letters, got 'BERT="),
        (["my-bert={}"], "expected --tokenizer NAME=PATH with a name in lower-case letters, got 'my-bert="),
        (["bert={}", "bert={}"], "--tokenizer bert is given twice: leave one out"),
        (["note={}"], "--tokenizer note: this name is taken, by the column tokens_note; choose another one"),
        (["bert=/nowhere/vocab.txt"], "no tokenizer of 'bert' at /nowhere/vocab.txt: expected "),
    ],
)
def test_tokenizers_that_cannot_be_opened(vocabulary, texts, message):
    with pytest.raises(InputError) as error:
        open_encoders([text.format(vocabulary) for text in texts])
    assert str(error.value).startswith(message)


def test_a_home_folder_is_found(vocabulary, monkeypatch):
    monkeypatch.setenv("HOME", str(vocabulary.parent))
    assert isinstance(open_encoders(["mine=~/vocab.txt"])["mine"], Encoder)
