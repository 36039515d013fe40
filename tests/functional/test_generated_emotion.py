"""`generated_emotion`: pandas as oracle, gaps, published figures, invariances."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from widespectrum.functional import generated_emotion
from widespectrum.functional._bootstrap import cluster_weights, resampling

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "reference" / "published_numbers.json"
EMOTIONS = ["angry", "fearful", "sad"]
seeds = st.integers(0, 2**32 - 1)


def numbers(result):
    return {name: value for name, value in result.items() if isinstance(value, float | int)}


def faces(n_prompts=12, probes=("a", "b"), seeds=2, seed=0, missing=0.2):
    """One row per prompt, emotion, probe wording and seed, some without a value."""
    rng = np.random.default_rng(seed)
    axes = {"prompt_id": range(n_prompts), "emotion": [*EMOTIONS, "happy"], "probe": probes, "image_seed": range(seeds)}
    table = pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)
    table["match"] = np.round(rng.random(len(table)), 3)
    table.loc[rng.random(len(table)) < missing, "match"] = np.nan
    return table


def measured(table, **extra):
    match = [None if np.isnan(value) else value for value in table["match"]]
    columns = {name: table[name].to_numpy() for name in table.columns if name != "match"}
    return generated_emotion(match, **({"n_resamples": 100} | columns | extra))


def naive(table, weights=None):
    """Match and difference per emotion and probe, by hand; `weights` says how often each prompt is drawn."""
    if weights is not None:
        copies = [
            table[table["prompt_id"] == k].assign(draw=f"{k}.{c}") for k, w in enumerate(weights) for c in range(w)
        ]
        table = pd.concat(copies)
    else:
        table = table.assign(draw=table["prompt_id"])
    match = table.groupby(["emotion", "probe"])["match"].mean().unstack()
    cells = table.groupby(["emotion", "probe", "draw"])["match"].mean().unstack("emotion")
    gaps = cells[EMOTIONS].sub(cells["happy"], axis=0).groupby("probe").mean().T
    return match, gaps


def test_generated_names_are_all_there_and_no_others():
    result = measured(faces())
    block = {f"{name}{end}" for name in ("match", "match_minus_control") for end in ("", "_ci_low", "_ci_high")}
    block |= {"n_pairs", "n_prompts", "n_missing", "n_paired", "notes", "cautions", "undefined_resamples"}
    assert set(result) == block | {"coverage", "by_emotion"}
    assert set(result["by_emotion"]["sad"]) == block | {"by_probe"}
    assert set(result["by_emotion"]["sad"]["by_probe"]) == {"a", "b"}
    assert set(result["by_emotion"]["sad"]["by_probe"]["a"]) == block
    assert "by_probe" not in measured(faces(probes=("a",)).drop(columns="probe"))["by_emotion"]["sad"]
    assert result["notes"] == {}


@pytest.mark.parametrize("seed", range(3))
def test_match_and_differences_agree_with_pandas(seed):
    table = faces(seed=seed)
    result, (match, gaps) = measured(table), naive(table)
    for emotion, block in result["by_emotion"].items():
        own = table[table["emotion"] == emotion]
        assert (block["n_pairs"], block["n_missing"]) == (len(own), own["match"].isna().sum())
        assert block["match"] == pytest.approx(match.loc[emotion].mean())
        for probe, part in block["by_probe"].items():
            assert part["match"] == pytest.approx(match.loc[emotion, probe])
            if emotion != "happy":
                assert part["match_minus_control"] == pytest.approx(gaps.loc[emotion, probe])
        if emotion != "happy":
            assert block["match_minus_control"] == pytest.approx(gaps.loc[emotion].mean())
    assert result["match"] == pytest.approx(match.loc[EMOTIONS].to_numpy().mean())
    assert result["match_minus_control"] == pytest.approx(gaps.to_numpy().mean())
    assert result["coverage"]["match"] == pytest.approx(table["match"].notna().mean())
    assert (result["n_pairs"], result["n_missing"]) == (len(table), table["match"].isna().sum())


def test_intervals_of_generated_faces_agree_with_a_plain_loop_over_the_same_draws():
    table = faces(n_prompts=8, missing=0.1)
    result = measured(table, n_resamples=60)
    drawn = [naive(table, row.astype(int)) for block in cluster_weights(8, resampling(60, 0, 0.95)) for row in block]
    means = [gaps.to_numpy().mean() for _, gaps in drawn]
    sad = [match.loc["sad", "a"] for match, _ in drawn]
    for block, name, values in (
        (result, "match_minus_control", means),
        (result["by_emotion"]["sad"]["by_probe"]["a"], "match", sad),
    ):
        ends = block[f"{name}_ci_low"], block[f"{name}_ci_high"]
        assert ends == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_a_complete_table_gives_the_difference_of_the_means():
    result = measured(faces(missing=0))
    happy = result["by_emotion"].pop("happy")
    for block in result["by_emotion"].values():
        assert block["match_minus_control"] == pytest.approx(block["match"] - happy["match"])
        assert block["n_paired"] == 12


def test_wordings_of_the_published_table_can_disagree():
    # Guo et al., match of the faces of two generators; the second column is another scoring in the authors' notebook
    published = {
        "DanceFlux": ({"angry": (0.27, 0.08), "happy": (0.61, 0.06)}, -0.34, 0.02),
        "Nano Banana": ({"angry": (0.84, 0.35), "happy": (0.60, 0.05)}, 0.24, 0.30),
    }
    for model, (means, first, second) in published.items():
        if PUBLISHED.is_file():
            known = json.loads(PUBLISHED.read_text())
            tables = ("emotion_generation", "emotion_generation_alternative_itm_scores_2_from_notebook")
            for emotion, values in means.items():
                place = known[tables[0]]["columns"].index(emotion)
                assert tuple(known[name][model][place] for name in tables) == values
        rows = [(name, f"wording {k}", t, m) for name, ms in means.items() for k, m in enumerate(ms) for t in range(30)]
        emotion, probe, template, match = zip(*rows, strict=True)
        result = generated_emotion(match, emotion=emotion, probe=probe, prompt_id=template, n_resamples=20)
        parts = result["by_emotion"]["angry"]["by_probe"].values()
        assert [round(part["match_minus_control"], 2) for part in parts] == [first, second]
        assert result["match_minus_control"] == pytest.approx((first + second) / 2)


def test_a_prompt_without_the_control_gives_no_difference():
    table = faces(missing=0)
    gone = (table["emotion"] == "happy") & (table["prompt_id"] >= 9)
    result = measured(table[~gone])
    sad = result["by_emotion"]["sad"]
    assert (sad["n_prompts"], sad["n_paired"]) == (12, 9)
    assert sad["match_minus_control"] == pytest.approx(naive(table[table["prompt_id"] < 9])[1].loc["sad"].mean())


@pytest.mark.parametrize(
    ("rows", "extra", "reason"),
    [
        ("emotion != 'happy'", {}, "not given: no row has the emotion 'happy', and `control` names no other"),
        ("emotion != 'happy'", {"control": None}, "not given: `control` is None"),
        ("emotion == emotion", {"prompt_id": None}, "not given: it needs prompt_id, to pair"),
        ("(emotion == 'happy') == (prompt_id < 6)", {}, "undefined: no prompt has both the emotion and the control"),
    ],
)
def test_differences_without_a_control_are_absent_with_a_reason(rows, extra, reason):
    result = measured(faces(missing=0).query(rows), **extra)
    for block in (result, result["by_emotion"]["sad"], result["by_emotion"]["sad"]["by_probe"]["a"]):
        assert block["notes"]["match_minus_control"].startswith(reason)
        assert not [name for name in block if name.startswith("match_minus_control")]
        assert 0 < block["match"] < 1
        assert block["n_paired"] == 0


def test_another_control_and_none():
    table = faces(missing=0)
    result = measured(table, control="sad")
    assert result["by_emotion"]["sad"]["notes"]["match_minus_control"] == "not given: this is the control"
    happy, sad = (result["by_emotion"][name] for name in ("happy", "sad"))
    assert happy["match_minus_control"] == pytest.approx(happy["match"] - sad["match"])
    everything = measured(table, control=None)
    assert everything["match"] == pytest.approx(np.mean([b["match"] for b in everything["by_emotion"].values()]))


def test_an_emotion_without_a_wording_has_no_average():
    table = faces(missing=0)
    result = measured(table[(table["emotion"] != "sad") | (table["probe"] == "a")])
    assert "match" not in result["by_emotion"]["sad"]
    assert result["by_emotion"]["sad"]["notes"]["match"] == "undefined in a part of this average"
    assert "match" in result["by_emotion"]["sad"]["by_probe"]["a"]
    assert result["by_emotion"]["sad"]["by_probe"]["b"]["notes"]["match"] == "undefined: no row has it"
    assert "match" not in result


def test_no_value_at_all_is_absent():
    result = generated_emotion([None, None], emotion=["sad", "happy"], n_resamples=5)
    assert "match" not in result
    assert (result["n_missing"], result["coverage"]["match"]) == (2, 0)


def test_one_template_gives_estimates_without_intervals():
    result = generated_emotion([0.25, 0.75], emotion=["sad", "happy"], prompt_id=[1, 1])
    assert (result["match"], result["match_minus_control"]) == (0.25, -0.5)
    assert not [name for name in result if name.endswith(("_ci_low", "_ci_high"))]
    assert "at least two prompts" in result["notes"]["match_minus_control_ci"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"match": [0.5, 1.5, 0.2]}, r"match, row 1 .*number from 0 to 1, or None, got 1.5"),
        ({"match": [0.5, 0.5, np.nan]}, r"match, row 2 .*finite number, got nan"),
        ({"match": []}, r"match: expected at least one row, got none"),
        ({"emotion": ["sad", "happy"]}, r"emotion: expected 3 rows"),
        ({"probe": ["a", "", "b"]}, r"probe, row 1 .*got ''"),
        (
            {"control": "joy"},
            r"control: expected one of the emotions 'happy', 'sad', got 'joy'; name one",
        ),
        ({"emotion": ["happy"] * 3}, r"emotion: expected one besides the control 'happy', got none"),
        ({"prompt_id": [1, 2, 1]}, r"row 2 .*repeats the key of row 0 \(prompt_id=1, emotion='sad'\)"),
        ({"seed": -1}, r"seed: .*got -1"),
    ],
)
def test_generated_emotion_names_what_is_wrong(changes, sentence):
    good = {"match": [0.1, 0.2, 0.3], "emotion": ["sad", "happy", "sad"]}
    with pytest.raises(ValueError, match=sentence):
        generated_emotion(**(good | changes))


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_the_order_of_faces_does_not_matter_and_swapping_with_the_control_flips_the_sign(seed):
    table = faces(n_prompts=5, seed=seed % 1000, missing=0.1)
    one, other = measured(table), measured(table.sample(frac=1, random_state=seed % 1000))
    assert numbers(other) == pytest.approx(numbers(one), abs=1e-9)
    two = table[table["emotion"].isin(["sad", "happy"])]
    swapped = two.assign(emotion=two["emotion"].map({"sad": "happy", "happy": "sad"}))
    assert measured(swapped)["match_minus_control"] == pytest.approx(-measured(two)["match_minus_control"])


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_repeating_the_faces_of_every_prompt_narrows_nothing(seed):
    table = faces(n_prompts=5, seed=seed % 1000, missing=0)
    again = pd.concat([table, table.assign(image_seed=table["image_seed"] + 100)])
    one, other = measured(table), measured(again)
    drop = {"n_pairs"}
    assert {k: v for k, v in numbers(other).items() if k not in drop} == pytest.approx(
        {k: v for k, v in numbers(one).items() if k not in drop}, abs=1e-9
    )
