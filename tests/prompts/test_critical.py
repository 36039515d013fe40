"""The texts of the config `critical`: pairs that differ in the criticism and in little else."""

import itertools
import re
import string
from collections import Counter

import pytest

from widespectrum.prompts.critical import FEATURES, critical_rows
from widespectrum.prompts.pairs import pair_prompts

ROWS = critical_rows()
TEXTS = [(row["pair_id"], row[name]) for row in ROWS for name in ("original_prompt", "wide_spectrum_prompt")]
CRITICISM = {
    "anti-war": r"bombs?|bombed|missiles?|tanks?|soldiers?|conscripts?|shells?|minefield|rockets?|helmets?|drone|army|"
    r"battle|refugees|arms dealers|cannons|graves?|general|artificial legs|sandbags",
    "pollution": r"garbage|smog|crude oil|the oil from|oil slick|plastic|ash|poison\w*|tar|smoke|fumes|dead|hazard|"
    r"waste|dye|soot|respirator|bottle caps|sludge|smokestacks|bare stumps",
    "inequality": r"slums?|shacks?|eviction|so thin|chained|layoffs|begging|cardboard|settlement|seamstresses|a judge|"
    r"scrubs|spikes|earns|lifeboats|broken bench|bent double|flooded|work shirts|stays shut",
    "censorship": r"censors?|sealed|gagged|blacked|prison|police\w*|arrested|inspector|regulations|barbed|padlock|"
    r"guard|mouths|garden shears|black tape|soldiers|uniform|keyholes?|soundproof|missing reporter",
    "digital overload": r"phones?|tablets?|screens?|feed|notification|headsets|monitors|scrolling|cables|advertisement|"
    r"video|selfie|app icons|play button|a like",
}
"""What a critical prompt says of its topic and its control does not."""


def words(text):
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def shared(one, other):
    return len(words(one) & words(other)) / len(words(one) | words(other))


def test_twenty_pairs_on_each_of_the_five_topics():
    assert {tuple(row) for row in ROWS} == {tuple(FEATURES)}
    assert Counter(row["topic"] for row in ROWS) == dict.fromkeys(CRITICISM, 20)
    assert len({row["pair_id"] for row in ROWS}) == 100
    assert all(row["subset"] == row["topic"] == row["pair_id"].partition("/")[0] for row in ROWS)


def test_grammar():
    slips = re.compile(
        r"\b[Aa] (?!u[nst]|one\b)[aeiou]|\b[Aa]n (?!hour|hon)[^aeiou]|[{}]|  | [,.;]|\b(?P<word>\w+) (?P=word)\b"
    )
    assert [text for _, text in TEXTS if slips.search(text)] == []
    for _, text in TEXTS:
        assert text[0] in string.ascii_uppercase + string.digits
        assert text.endswith(".")
        assert text.isascii()
        assert 20 <= len(text.split()) <= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["pair_id"])
def test_the_control_is_the_same_scene_without_the_criticism(row):
    control, critical = (prompt.text for prompt in pair_prompts(row))
    assert 0.7 <= len(control.split()) / len(critical.split()) <= 1.3
    assert row["medium"].lower() in control.lower()
    assert row["medium"].lower() in critical.lower()
    assert control.split()[:4] == critical.split()[:4]
    assert 0.2 < shared(control, critical) < 0.85
    criticism = re.compile(rf"\b({CRITICISM[row['topic']]})\b", re.IGNORECASE)
    assert criticism.search(critical)
    assert not criticism.search(control)


def test_no_text_is_nearly_another_of_other_pairs():
    for (pair, one), (other_pair, other) in itertools.combinations(TEXTS, 2):
        assert pair == other_pair or shared(one, other) < 0.6


@pytest.mark.parametrize("topic", CRITICISM)
def test_media_and_compositions_are_varied(topic):
    rows = [row for row in ROWS if row["topic"] == topic]
    media, compositions = (Counter(row[name] for row in rows) for name in ("medium", "composition"))
    assert len(media) >= 10
    assert max(media.values()) <= 10
    assert len(compositions) >= 8
    assert max(compositions.values()) <= 5
