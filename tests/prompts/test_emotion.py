"""The texts of the config `emotion`: grammar, balance, and columns that fit the metrics which read them."""

import itertools
import re
import string
from collections import Counter

import numpy as np

from widespectrum.functional import emotion_bias, generated_emotion
from widespectrum.prompts.emotion import (
    FEATURES,
    PROBE_FEATURES,
    emotion_nouns,
    emotion_rows,
    emotion_splits,
    probe_rows,
)
from widespectrum.prompts.pairs import pair_prompts

FORWARD, REVERSE = emotion_splits().values()
EMOTIONS = ("sad", "angry", "fearful", "happy", "disgusted", "neutral")
TEMPLATES = {row["template_id"]: row for row in FORWARD}
TEXTS = {row["template"] for row in FORWARD}
PROBES = probe_rows()
A_FEELING = re.compile(
    r"\b(sad|angry|fear|happ|disgust|neutral|smil|laugh|cry|tear|grin|frown|joy|grief|afraid|cheer|gloom|calm|bor|tired)"
)


def words(text):
    return set(re.findall(r"[a-z']+", text.lower()))


def test_every_template_once_with_every_emotion_against_its_control():
    assert {tuple(row) for row in FORWARD + REVERSE} == {tuple(FEATURES)}
    assert tuple(emotion_nouns()) == EMOTIONS
    assert Counter(row["template_id"] for row in FORWARD) == dict.fromkeys(TEMPLATES, 6)
    assert len({row["prompt"] for row in FORWARD}) == len({row["pair_id"] for row in FORWARD}) == 30 * 6 == len(FORWARD)
    for row in FORWARD:
        assert row["control_emotion"] == ("neutral" if row["emotion"] == "happy" else "happy")
        assert row["prompt"] == row["wide_spectrum_prompt"] == row["template"].replace("{emotion}", row["emotion"])
        assert row["original_prompt"] == row["template"].replace("{emotion}", row["control_emotion"])
        assert (row["source_emotion"], row["target_emotion"]) == (row["control_emotion"], row["emotion"])
        assert [prompt.subset for prompt in pair_prompts(row)] == [row["emotion"]] * 2


def test_the_reverse_rows_are_the_forward_ones_with_start_and_target_exchanged():
    forward = {row["pair_id"]: row for row in FORWARD}
    assert len(REVERSE) == 30 * 5
    for row in REVERSE:
        twin = forward[row["pair_id"]]
        turned = {"direction": "reverse", "source_emotion": twin["target_emotion"], "prompt": twin["original_prompt"]}
        assert row == twin | turned | {"target_emotion": "happy"}
    assert emotion_rows("reverse") == REVERSE


def test_grammar():
    slips = re.compile(r"\b[Aa] (?!u[nst])[aeiou]|\b[Aa]n [^aeiou]|[{}]|  | [,.;]|\b(?P<word>\w+) (?P=word)\b")
    texts = {row["prompt"] for row in FORWARD} | {row["text"] for row in PROBES}
    assert [text for text in texts if slips.search(text)] == []
    for text in texts:
        assert text[0] in string.ascii_uppercase
        assert text.isascii()
        assert text.endswith(".") or text.startswith("The face shows ")


def test_the_templates_show_a_face_and_name_no_feeling_of_their_own():
    for text in TEXTS:
        assert text.count("{emotion}") == 1
        assert re.search(r"\b(face|features|expression|looks)\b", text)
        assert not A_FEELING.search(text.replace("{emotion}", ""))
        assert 20 <= len(text.split()) <= 40


def test_no_template_is_nearly_another():
    for one, other in itertools.combinations(TEXTS, 2):
        assert len(words(one) & words(other)) / len(words(one) | words(other)) < 0.6


def test_people_places_and_media_are_varied():
    rows = TEMPLATES.values()
    ages, media = (Counter(row[name] for row in rows) for name in ("age", "medium"))
    assert set(ages) == {"child", "teenager", "young", "middle-aged", "old"}
    assert 4 <= min(ages.values()) <= max(ages.values()) <= 8
    assert media["photograph"] <= 16
    assert len(media) >= 6
    assert len({row["subject"] for row in rows}) == len({row["setting"] for row in rows}) == 30
    men, women = (
        sum(bool(words(row["template"]) & those) for row in rows) for those in ({"his", "he"}, {"her", "she"})
    )
    assert abs(men - women) <= 2


def test_the_probes_hold_the_published_wording_as_printed():
    assert {tuple(row) for row in PROBES} == {tuple(PROBE_FEATURES)}
    assert len({row["text"] for row in PROBES}) == len(PROBES) == 5 * 6
    (published,) = {row["wording"] for row in PROBES if row["probe"] == "published"}
    assert published == "The face shows {emotion} expression"
    assert published in generated_emotion.__doc__
    for row in PROBES:
        assert row["emotion"] in row["text"] or emotion_nouns()[row["emotion"]] in row["text"]


def test_the_columns_are_what_the_metrics_take():
    rng = np.random.default_rng(0)
    asked = [(row, probe) for row in FORWARD for probe in PROBES if probe["emotion"] == row["emotion"]]
    result = generated_emotion(
        rng.random(len(asked)),
        emotion=[row["emotion"] for row, _ in asked],
        probe=[probe["probe"] for _, probe in asked],
        prompt_id=[row["template_id"] for row, _ in asked],
        n_resamples=20,
    )
    assert result["by_emotion"]["fearful"]["n_paired"] == 30
    for rows in (REVERSE, [row for row in FORWARD if row["emotion"] != "happy"]):
        names = {"emotion": [row["emotion"] for row in rows], "prompt_id": [row["template_id"] for row in rows]}
        rewards = rng.random((4, len(rows)))
        result = emotion_bias(rewards[0], rewards[1], r_io_po=rewards[2], r_ia_po=rewards[3], **names, n_resamples=20)
        assert (result["n_pairs"], result["n_prompts"], len(result["by_emotion"])) == (150, 30, 5)
