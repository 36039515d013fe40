"""Several judges in one run: whose answers count, what the others say, and how far the order sways them."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from widespectrum import columns, pipeline, runs, store, tables
from widespectrum.config import EvaluateConfig, parse_run_file, read_run_file
from widespectrum.errors import InputError
from widespectrum.results import evaluate, read_evaluation, read_results
from widespectrum.types import DIMENSIONS, ModelSpec, Verdict

EFFECTS, IDENTITY = "photo-effects[size=48,strength=3]", "identity[size=48]"
SETTINGS = "\n[evaluate]\nn_resamples = 50\n"


def add_judge(run, label, *, every=1, **answers):
    """Verdicts of one judge: an outcome per order or dimension, or a function of the number of the pair.

    Of pairs it answers `every` second, third or so.
    """
    runs.register(
        run, "judges", label, ModelSpec(adapter="external", name="judge", revision="v1", params={"model": label})
    )
    rows = []
    for number, pair in list(enumerate(pipeline.image_pairs(run)))[::every]:
        own, rival = pair.image_ids["wide_spectrum"], pair.image_ids["original"]
        for name, given in answers.items():
            outcome = given(number) if callable(given) else given
            is_order = name in ("first", "second", "both")
            for image in (own,) if is_order else dict.fromkeys((own, rival)):
                row = Verdict(
                    prompt_id=pair.prompts["wide_spectrum"].prompt_id,
                    image_id=image,
                    rival_id=rival if is_order else "",
                    dimension="overall" if is_order else name.replace("_", " "),
                    judge=label,
                    outcome=outcome if image == own or is_order else 0.0,
                    order=name if is_order else "both",
                    rationale="",
                )
                rows.append(row)
    store.append(
        run, "verdicts", list({tuple(getattr(r, k) for k in store.KEYS["verdicts"]): r for r in rows}.values())
    )


@pytest.fixture
def judged(run_copy):
    add_judge(run_copy, "a", first=1.0, second=lambda n: float(n % 4 > 0), both=lambda n: 1.0 if n % 4 else 0.5)
    add_judge(run_copy, "b", effects=0.7, main_concept=0.5)
    add_judge(run_copy, "c", effects=0.2, content=0.9)
    return run_copy


def pick(run, **wanted):
    return columns.pick_judges(run, EvaluateConfig(**wanted))


def test_the_first_that_answered_counts_in_each_role(judged):
    assert pick(judged) == columns.Judges(verdict="pixel", effect="b", content="b", dimension="pixel")
    chosen = pick(judged, verdict_judge="a", effect_judge="c", content_judge="c")
    assert chosen == columns.Judges(verdict="a", effect="c", content="c", dimension="pixel")
    # The judge of the verdicts goes before others that were named earlier.
    assert pick(judged, verdict_judge="c") == columns.Judges("c", "c", "c", "pixel")


def test_a_role_in_which_nobody_answered_stays_empty(run_copy):
    assert pick(run_copy) == columns.Judges(verdict="pixel", effect="", content="", dimension="pixel")


@pytest.mark.parametrize("role", columns.Judges._fields)
def test_a_wanted_judge_must_be_one_of_the_run(judged, role):
    with pytest.raises(InputError, match=rf"^{role}_judge 'd' is no judge of this run; it has: pixel, a, b, c$"):
        pick(judged, **{f"{role}_judge": "d"})


def test_a_wanted_judge_must_be_asked_what_it_is_wanted_for(judged):
    runs.register(judged, "judges", "e", ModelSpec(adapter="vlm-effects", name="vlm-effects", revision="v1"))
    assert pick(judged, effect_judge="e", content_judge="e").effect == "e"
    for role in ("verdict", "dimension"):
        with pytest.raises(InputError, match=rf"^{role}_judge 'e' is asked nothing of the kind: name one that is"):
            pick(judged, **{f"{role}_judge": "e"})


def test_what_counts_and_what_stands_beside(judged):
    config = parse_run_file(read_run_file(judged).text + SETTINGS + 'content_judge = "c"\n', check_paths=False)
    evaluate(judged, config)
    runs.save_run_file(judged, config)
    results = read_results(judged).set_index(["model", "metric", "subset"])
    values, low = results["value"], results["ci_low"]
    assert 0 < low[EFFECTS, "success_rate/a", "all"] <= values[EFFECTS, "success_rate/a", "all"]
    assert read_evaluation(judged).judges == {"verdict": "pixel", "effect": "b", "content": "c", "dimension": "pixel"}
    rows = [n for n, pair in enumerate(pipeline.image_pairs(judged)) if pair.generator == EFFECTS]
    # A request that was refused is no success of any judge.
    asked = values[EFFECTS, "n_pairs", "all"] - values.get((EFFECTS, "failure_rate", "all"), 0)
    assert values[EFFECTS, "success_rate/a", "all"] == pytest.approx(np.sum([n % 4 > 0 for n in rows]) / asked)
    assert values[EFFECTS, "effect_after", "all"] == pytest.approx(70)
    assert values[EFFECTS, "effect_after/c", "all"] == pytest.approx(20)
    assert values[EFFECTS, "content_after", "all"] == pytest.approx(90)
    assert values[EFFECTS, "content_after/b", "all"] == pytest.approx(50)
    assert not any(metric.startswith("success_rate/") and metric != "success_rate/a" for _, metric, _ in values.index)


def test_the_sway_of_the_order_is_a_metric_of_the_judge(judged):
    config = parse_run_file(read_run_file(judged).text + SETTINGS, check_paths=False)
    evaluate(judged, config)
    runs.save_run_file(judged, config)
    results = read_results(judged).set_index(["model", "metric"])
    pairs = len(pipeline.image_pairs(judged))
    assert results.loc[("a", "position_bias_rate"), "value"] == pytest.approx(np.mean(np.arange(pairs) % 4 == 0))
    assert results.loc[("a", "first_shown_rate"), "value"] == 1.0
    # It rests on those alone whose verdict is turned round.
    turned = {pair.prompts["original"].pair_id for pair in pipeline.image_pairs(judged)[::4]}
    assert results.loc[("a", "first_shown_rate"), "n"] == len(turned)
    assert results.loc[("a", "position_bias_rate"), "n"] > len(turned)
    assert results.loc[("pixel", "position_bias_rate"), "value"] == 0.0
    assert "b" not in results.index.get_level_values("model")


def test_n_of_j_counts_the_pairs_that_are_rated_in_full(run_copy):
    rated = {name.replace(" ", "_"): 0.5 for name in DIMENSIONS if name != "clarity"}
    add_judge(run_copy, "partial", **rated)
    text = read_run_file(run_copy).text + SETTINGS + 'dimension_judge = "partial"\n'
    found = evaluate(run_copy, parse_run_file(text, check_paths=False))
    results = {(each.model, each.metric): each for each in found if each.subset == "all"}
    own = [pair for pair in pipeline.image_pairs(run_copy) if pair.generator == EFFECTS]
    whole = [pair for pair in own if "clarity" not in pair.prompts["wide_spectrum"].dimensions]
    assert results[EFFECTS, "delta_j_selected"].n == len(whole) < len(own)
    assert (EFFECTS, "delta_j_all") not in results


def test_a_person_who_saw_every_pair_once_has_no_sway(judged):
    once = {"first": lambda n: float(n % 2), "both": lambda n: float(n % 2)}
    add_judge(judged, "human:r1", **once)
    # Half of the pairs in the other order.
    rows = store.read(judged, "verdicts").to_pandas()
    rater = (rows["judge"] == "human:r1") & (rows["order"] == "first")
    rows.loc[rater & (rows.index % 4 < 2), "order"] = "second"
    shutil.rmtree(judged / "verdicts")
    store.append(judged, "verdicts", pa.Table.from_pandas(rows, schema=store.SCHEMAS["verdicts"], preserve_index=False))
    assert {"first", "second", "both"} == set(rows.loc[rows["judge"] == "human:r1", "order"])
    results = evaluate(judged, parse_run_file(read_run_file(judged).text + SETTINGS, check_paths=False))
    assert not any(each.model == "human:r1" for each in results)
    assert any(each.metric == "success_rate/human:r1" for each in results)


def test_expressed_emotion_is_a_metric_of_the_generator(run_copy):
    spec = ModelSpec(adapter="emotion", name="blip", revision="v1")
    runs.register(run_copy, "judges", "faces", spec)
    pairs = [pair for pair in pipeline.image_pairs(run_copy) if pair.generator == EFFECTS]
    emotions = ["sad", "happy"] * (len(pairs) // 2)
    rows = []
    for pair, emotion in zip(pairs, emotions, strict=True):
        match = {"sad": 0.25, "happy": 0.75}[emotion]
        details = {"emotion": emotion, "face": None, "faces": 0, "probes": {"one": match - 0.25, "two": match + 0.25}}
        named = {"prompt_id": pair.prompts["wide_spectrum"].prompt_id, "image_id": pair.image_ids["wide_spectrum"]}
        asked = {"rival_id": "", "dimension": "expressed emotion", "judge": "faces", "order": "both"}
        rows.append(Verdict(**named, **asked, outcome=match, rationale="", details=json.dumps(details)))
    store.append(run_copy, "verdicts", rows)
    config = parse_run_file(read_run_file(run_copy).text + SETTINGS, check_paths=False)
    evaluate(run_copy, config)
    runs.save_run_file(run_copy, config)
    results = read_results(run_copy).set_index(["model", "metric", "subset"])
    assert results.loc[(EFFECTS, "emotion_match", "emotion=happy"), "value"] == pytest.approx(0.75)
    assert results.loc[(EFFECTS, "emotion_match", "emotion=sad"), "value"] == pytest.approx(0.25)
    assert results.loc[(EFFECTS, "emotion_match", "emotion=sad"), "n"] == emotions.count("sad")
    assert results.loc[(EFFECTS, "emotion_match", "all"), "value"] == pytest.approx(0.25)
    # The happy ones are the control, and no part of the mean.
    assert results.loc[(EFFECTS, "emotion_match", "all"), "n"] == emotions.count("sad")
    assert results.loc[(EFFECTS, "emotion_face_rate", "all"), "n"] == len(emotions)
    assert results.loc[(EFFECTS, "emotion_face_rate", "all"), "value"] == 0.0


@pytest.mark.parametrize("every", [1, 2])
def test_refusals_beside_verdicts_on_some_pairs_only_are_cautioned_against(run_copy, every):
    add_judge(run_copy, "drawn", every=every, both=1.0)
    text = read_run_file(run_copy).text + SETTINGS + 'verdict_judge = "drawn"\n'
    config = parse_run_file(text, check_paths=False)
    evaluate(run_copy, config)
    runs.save_run_file(run_copy, config)
    said = [caution for caution in tables.cautions(run_copy) if "all refusals count" in caution]
    assert [EFFECTS in caution and IDENTITY not in caution for caution in said] == [True] * (every - 1)
