"""OpenAI's own tokenizer, as open_clip carries it, is the oracle of CLIP's token counts and of HPSv2's ids."""

import html

import ftfy
import pytest
from open_clip.tokenizer import SimpleTokenizer

from widespectrum.prompts.tokenizers import load_encoder
from widespectrum.rewards.tokenization import load_clip_bpe

TEXTS = [
    "",
    "A man rides a horse.",
    "A cat's toy isn't there; they'd say we'll see, I'm sure you've been, we're, he'd.",
    "THE DOG'S BOWL, IT'S EMPTY",
    "12,345.67 kg, 1/2, 50%, 3-D, f/2.8, 1990s, #3 @home $5 & more",
    "half-lit -- no—really – wait…",
    "(a) [b] {c} <d> \\ / | ~ ` ^ * _ a_b __",
    "café naïve Ünïcode Ærøskøbing e\u0301",
    "中文字 日本語テスト 한국어 русский ελληνικά עברית العربية",
    "😀 👍🏽 👨‍👩‍👧 ☂️ →",
    "  lots \t of\n\n space  ",
    "x" * 300,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "a grainy, low-contrast photograph of an empty swimming pool at dusk, tilted, out of focus, with harsh flash",
]
CHANGED = ["“curly” it’s", "don´t &amp; won‘t", "<b>bold</b> &lt;", "ﬁligree"]
"""Texts that open_clip rewrites before it counts, and transformers and diffusers do not."""


@pytest.fixture(scope="module")
def clip():
    return load_encoder("clip")


@pytest.mark.parametrize("text", TEXTS)
def test_counts_are_those_of_open_clip(clip, text):
    assert clip.count([text]).tolist() == [len(SimpleTokenizer().encode(text)) + 2]


@pytest.mark.parametrize("text", CHANGED)
def test_what_open_clip_rewrites_is_counted_as_it_stands(clip, text):
    expected = len(SimpleTokenizer().encode(text)) + 2
    assert clip.count([text]) > expected
    assert clip.count([html.unescape(ftfy.fix_text(text))]) == expected


def test_the_first_lost_character_is_where_open_clip_cuts(clip):
    tokenizer = SimpleTokenizer()
    text = " ".join(TEXTS[1:7])
    lost = clip.first_lost_character(text, 77)
    kept = tokenizer(text)[0].tolist()
    assert kept[0] == tokenizer.sot_token_id
    assert kept[-1] == tokenizer.eot_token_id
    assert kept[1:-1] == tokenizer.encode(text[:lost])
    assert clip.first_lost_character(text[:lost], 77) is None


@pytest.mark.parametrize(
    "text", [*TEXTS, *CHANGED, "donâ€™t &amp;lt; a <start_of_text>b <END_OF_TEXT>! !<end_of_text>"]
)
def test_hpsv2_reads_the_ids_of_open_clip(text):
    assert load_clip_bpe(None, "hpsv2").ids(text)[1:-1] == SimpleTokenizer().encode(text)
