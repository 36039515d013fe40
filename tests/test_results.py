"""From run tables to results: what counts, what is left out, and what becomes stale."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from widespectrum import columns, results, run_models, stages, store, tables
from widespectrum.config import parse_run_file, read_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.functional import anti_aesthetic_adherence, prior_and_match
from widespectrum.results import evaluate, read_evaluation, read_results
from widespectrum.runs import save_run_file

PIXEL = columns.Judges(*["pixel"] * 4)

EFFECTS, IDENTITY = "photo-effects[size=48,strength=3]", "identity[size=48]"
FAST = "\n[evaluate]\nn_resamples = 50\n"


def evaluated(run, extra=FAST):
    """The results of a run folder, evaluated quickly: (model, metric, subset) → row."""
    config = parse_run_file(read_run_file(run).text + extra)
    evaluate(run, config)
    save_run_file(run, config)
    return read_results(run).set_index(["model", "metric", "subset"])


def drop_rows(run, table, keep):
    """Rewrite a table as one part that holds only the rows for which `keep` is true."""
    rows = store.read(run, table).to_pylist()
    for path in store.parts(run, table):
        path.unlink()
    kept = [row for row in rows if keep(row)]
    store.append(run, table, store.pa.Table.from_pylist(kept, schema=store.SCHEMAS[table]))
    return len(rows) - len(kept)


def test_figures_equal_those_made_by_hand_from_the_scores(run_copy):
    values = evaluated(run_copy)
    rows = store.read(run_copy, "scores").to_pandas()
    cells = rows[rows["reward_model"] == "random"].pivot(
        index=["pair_id", "generator"], columns=["image_role", "prompt_role"], values="value"
    )
    quadruple = [cells[cell].to_numpy() for cell in columns.CELLS]
    prior, match = prior_and_match(*quadruple)
    assert values.loc[("random", "image_prior", "all"), "value"] == pytest.approx(prior.mean(), abs=1e-12)
    assert values.loc[("random", "prompt_match", "all"), "value"] == pytest.approx(match.mean(), abs=1e-12)
    right = (cells["original", "original"] > cells["wide_spectrum", "original"]) & (
        cells["wide_spectrum", "wide_spectrum"] > cells["original", "wide_spectrum"]
    )
    assert values.loc[("random", "both_ways_accuracy", "all"), "value"] == right.mean()
    by_effects = right[right.index.get_level_values("generator") == EFFECTS]
    place = ("random", "both_ways_accuracy", f"all/generator={EFFECTS}")
    assert values.loc[place, "value"] == by_effects.mean()


def test_a_missing_score_is_never_charged_to_the_generator(run_copy):
    whole = evaluated(run_copy)
    lost = drop_rows(
        run_copy, "scores", lambda row: row["reward_model"] != "colorfulness" or row["generator"] != EFFECTS
    )
    assert lost == 4 * 12
    part = evaluated(run_copy, "")
    for metric in ("success_rate", "failure_rate", "refusal_rate", "delta_j_selected"):
        assert part.loc[(EFFECTS, metric, "all"), "value"] == whole.loc[(EFFECTS, metric, "all"), "value"]
    assert (EFFECTS, "delta_reward/colorfulness", "all") not in part.index
    assert part.loc[(EFFECTS, "coverage/r_ia_po/colorfulness", "all"), "value"] == 0.0
    assert part.loc[(EFFECTS, "delta_reward/random", "all"), "value"] == pytest.approx(
        whole.loc[(EFFECTS, "delta_reward/random", "all"), "value"]
    )


def wins(run):
    """The wide-spectrum prompts whose image wins for photo-effects."""
    pairs = columns.pair_table(run, PIXEL).drop_duplicates(columns.KEY)
    found = set(pairs.loc[(pairs["generator"] == EFFECTS) & (pairs["verdict"] == 1), "prompt_pa"])
    assert len(found) > 6
    return found


def test_what_was_not_made_is_a_failure_and_no_result(run_copy):
    images = store.read(run_copy, "images").to_pylist()
    made = [row["prompt_id"] for row in images if row["generator"] == EFFECTS and row["status"] == "ok"]
    wide = {row["prompt_id"] for row in store.read(run_copy, "prompts").to_pylist() if row["role"] == "wide_spectrum"}
    gone = [prompt for prompt in made if prompt in wide][:5]
    drop_rows(run_copy, "images", lambda row: row["generator"] != EFFECTS or row["prompt_id"] not in gone)
    values = evaluated(run_copy)
    assert values.loc[(EFFECTS, "failure_rate", "all"), "value"] == 5 / 22
    # Of 22 pairs 10 are refused, which is no success, and 5 are not made, which is no result.
    assert values.loc[(EFFECTS, "success_rate", "all"), "value"] == len(wins(run_copy) - set(gone)) / 17
    assert values.loc[(EFFECTS, "success_rate", "all"), "n"] == 17
    (caution,) = (text for text in tables.cautions(run_copy) if "not finished" in text)
    assert f"{EFFECTS} did not make every image" in caution


def test_n_counts_the_prompt_pairs_behind_each_figure(run_copy):
    values = evaluated(run_copy)
    assert not any("not finished" in text for text in tables.cautions(run_copy))
    assert values.loc[(EFFECTS, "refusal_rate", "all"), "n"] == 22
    assert values.loc[(EFFECTS, "success_rate", "all"), "n"] == 22
    assert values.loc[(EFFECTS, "delta_reward/random", "all"), "n"] == 12
    assert values.loc[(EFFECTS, "delta_j_selected", "all"), "n"] == 12
    assert values.loc[(IDENTITY, "success_rate", "all"), "n"] == 12
    assert values.loc[(IDENTITY, "coverage/verdict", "all"), "value"] == pytest.approx(12 / 22)
    assert values.loc[("random", "image_prior", "all"), "n"] == 22
    assert values.loc[("random", "accuracy", "all"), "n"] == 12
    assert values.loc[("random", "image_prior", "controlled"), "n"] == 12


@pytest.mark.parametrize("count", [1, 12])
def test_an_effect_that_changed_nothing_is_not_controlled(run_copy, count):
    rows = store.read(run_copy, "scores").to_pylist()
    own = [row for row in rows if row["generator"] == EFFECTS]
    originals = {row["pair_id"]: row["image_id"] for row in own if row["image_role"] == "original"}
    changed_nothing = sorted(originals)[:count]
    for row in own:
        if row["pair_id"] in changed_nothing:
            row["image_id"] = originals[row["pair_id"]]
    for path in store.parts(run_copy, "scores"):
        path.unlink()
    store.append(run_copy, "scores", store.pa.Table.from_pylist(rows, schema=store.SCHEMAS["scores"]))
    values = evaluated(run_copy)
    place = ("random", "image_prior", "controlled")
    assert values.loc[place, "n"] == 11 if count == 1 else place not in values.index
    reasons = [note["reason"] for note in read_evaluation(run_copy).notes if note["subset"] == "controlled"]
    assert f"{count} pairs left out: the effect changed nothing in the image" in reasons


def test_notes_say_why_figures_are_absent(run_copy):
    values = evaluated(run_copy)
    assert ("colorfulness", "prior_over_match", "controlled") not in values.index
    notes = {
        (note["model"], note["subset"], note["metric"]): note["reason"] for note in read_evaluation(run_copy).notes
    }
    assert notes["colorfulness", "controlled", "prior_over_match"] == "undefined: the mean prompt match is 0"
    assert "effect_io" in notes[EFFECTS, "all", "effect_gain"]


def add_ratings(run, dimension, outcome):
    prompts = {row["prompt_id"] for row in store.read(run, "prompts").to_pylist() if row["role"] == "wide_spectrum"}
    pairs = columns.pair_table(run, PIXEL).drop_duplicates(columns.KEY)
    ids = {(row.prompt_pa, image) for row in pairs.itertuples() for image in (row.image_io, row.image_ia)}
    changed = {(row.prompt_pa, row.image_ia) for row in pairs.itertuples() if row.generator == EFFECTS}
    rows = [
        {
            "prompt_id": prompt,
            "image_id": image,
            "rival_id": "",
            "dimension": dimension,
            "judge": "pixel",
            "outcome": outcome[(prompt, image) in changed],
            "order": "both",
            "rationale": "",
        }
        for prompt, image in sorted(ids)
        if prompt in prompts
    ]
    store.append(run, "verdicts", store.pa.Table.from_pylist(rows, schema=store.SCHEMAS["verdicts"]))


def test_effect_and_content_ratings_reach_the_metrics(run_copy):
    add_ratings(run_copy, "effects", {True: 0.8, False: 0.1})
    add_ratings(run_copy, "main concept", {True: 0.6, False: 0.9})
    values = evaluated(run_copy)
    assert values.loc[(EFFECTS, "effect_gain", "all"), "value"] == pytest.approx(70)
    direct = anti_aesthetic_adherence([None], [None], content_io=[90], content_ia=[60], n_resamples=2)
    assert values.loc[(EFFECTS, "content_preservation", "all"), "value"] == pytest.approx(
        direct["content_preservation"]
    )


def test_results_older_than_the_tables_are_refused(run_copy):
    evaluated(run_copy)
    config = read_run_file(run_copy)
    added = parse_run_file(config.text.replace('name = "random"', 'name = "sharpness"', 1))
    models = run_models.load_models(added)
    stages.score(run_copy, added, models, print)
    for read in (read_results, read_evaluation, tables.headline):
        with pytest.raises(RunFolderError, match=r"older than its tables .* run `widespectrum evaluate .*` again"):
            read(run_copy)
    run_models.register(run_copy, models)
    assert "sharpness" in evaluated(run_copy, "").index.get_level_values("model")


def test_other_settings_make_results_stale(run_copy):
    evaluated(run_copy)
    save_run_file(run_copy, parse_run_file(read_run_file(run_copy).text.replace("50", "51")))
    with pytest.raises(RunFolderError, match="older than its tables or its"):
        read_results(run_copy)


@pytest.mark.parametrize("damage", ["{", "{}", '{"inputs": 1}'])
def test_a_damaged_evaluation_is_named(run_copy, damage):
    evaluated(run_copy)
    (run_copy / "results" / "evaluation.json").write_text(damage)
    with pytest.raises(RunFolderError, match=r"evaluation\.json is damaged .* run `widespectrum evaluate"):
        read_results(run_copy)


def test_a_run_without_its_images_is_not_evaluated(run_copy):
    for path in store.parts(run_copy, "images"):
        path.unlink()
    with pytest.raises(RunFolderError, match="lacks its images"):
        evaluated(run_copy)


def test_a_base_generator(run_copy):
    values = evaluated(run_copy, FAST + f'bases = {{ "{EFFECTS}" = "{IDENTITY}" }}\n')
    assert -1 <= values.loc[(EFFECTS, "wilcoxon_r/colorfulness", "all"), "value"] <= 1
    assert values.loc[(EFFECTS, "mcnemar_p", "all"), "value"] == pytest.approx(2 * 0.5 ** len(wins(run_copy)))
    assert (IDENTITY, "wilcoxon_r/colorfulness", "all") not in values.index


def test_p_values_are_corrected_over_the_whole_run(run_copy):
    values = evaluated(run_copy, FAST + f'bases = {{ "{EFFECTS}" = "{IDENTITY}", "{IDENTITY}" = "{EFFECTS}" }}\n')
    metrics = values.index.get_level_values("metric")
    kinds = metrics.str.partition("/").get_level_values(0)
    family = values[kinds.isin(results.P_VALUES) & (values.index.get_level_values("subset") == "all")]
    # Two generators, each with the verdicts and the two reward models that tell them apart.
    assert len(family) == 2 * (1 + 2)
    expected = multipletests(family["value"], method="holm")[1]
    for (model, metric, subset), n, p in zip(family.index, family["n"], expected, strict=True):
        name, slash, reward_model = metric.partition("/")
        row = values.loc[(model, f"{name}_holm{slash}{reward_model}", subset)]
        assert (row["value"], row["n"]) == (pytest.approx(p), n)
        assert math.isnan(row["ci_low"])
    corrected = values[kinds.isin([f"{name}_holm" for name in results.P_VALUES])]
    assert len(corrected) == len(family)
    assert (corrected["value"] > family["value"].min()).any()


def test_without_a_base_there_is_nothing_to_correct(run_copy):
    metrics = evaluated(run_copy).index.get_level_values("metric")
    assert not metrics.str.match("(wilcoxon|mcnemar).*_holm").any()


def test_every_two_reward_models_are_compared_on_each_subset(run_copy):
    values = evaluated(run_copy, FAST)
    pair = "colorfulness", "oracle"
    rows = columns.pair_table(run_copy, PIXEL)
    by_model = {name: part.set_index(columns.KEY, drop=False) for name, part in rows.groupby("reward_model")}
    for subset in columns.SUBSETS:
        chosen = columns.subset_flags(by_model[pair[0]])[subset]
        right = [
            ((each["r_io_po"] > each["r_ia_po"]) & (each["r_ia_pa"] > each["r_io_pa"]))[chosen]
            for each in (by_model[name] for name in pair)
        ]
        row = values.loc[(pair[0], f"both_ways_accuracy_difference/{pair[1]}", subset)]
        assert row["value"] == pytest.approx(right[0].mean() - right[1].mean())
        table = [[(right[0] & right[1]).sum(), (right[0] & ~right[1]).sum()], [(~right[0] & right[1]).sum(), 0]]
        p = values.loc[(pair[0], f"both_ways_accuracy_mcnemar_p/{pair[1]}", subset), "value"]
        assert p == pytest.approx(float(mcnemar(table, exact=True).pvalue))
        metrics = values.index.get_level_values("metric")
        in_subset = values.index.get_level_values("subset") == subset
        for test in (
            "both_ways_accuracy_mcnemar_p",
            "both_ways_accuracy_cluster_p",
            "accuracy_under_original_cluster_p",
        ):
            family = values[in_subset & metrics.str.startswith(f"{test}/")]["value"]
            adjusted = values[in_subset & metrics.str.startswith(f"{test}_holm/")]["value"]
            assert len(family) == 3
            assert sorted(adjusted) == pytest.approx(sorted(multipletests(family, method="holm")[1]))
        # two captions cannot tell anything apart, however many images
        assert values[in_subset & metrics.str.contains("cluster_p/")]["value"].min() >= 0.5


def test_tie_groups_stand_on_the_headline_figures_alone(run_copy):
    values = evaluated(run_copy, FAST)
    grouped = values[values["tie_group"].notna()]
    assert set(grouped.index.get_level_values("metric")) == {"success_rate", "both_ways_accuracy"}
    assert set(grouped.index.get_level_values("subset")) == set(columns.SUBSETS)
    # two captions cannot tell anything apart
    assert set(grouped["tie_group"]) == {1}


def test_one_strength_has_no_slope_and_says_why(run_copy):
    values = evaluated(run_copy)
    assert not values.index.get_level_values("metric").str.startswith("dose_").any()
    notes = [note for note in read_evaluation(run_copy).notes if note["metric"] == "dose_slope_difference"]
    assert {note["model"] for note in notes} == {"colorfulness", "random", "oracle"}
    assert all("at two strengths or more" in note["reason"] for note in notes)


def test_slopes_over_the_strengths_of_a_run(tmp_path, run_text):
    weaker = '[[generators]]\nname = "photo-effects"\nstrength = 2\nsize = 48\n\n[[reward_models]]'
    config = parse_run_file(run_text.replace("[[reward_models]]", weaker, 1) + FAST)
    run, models, prompt_set = tmp_path / "run", run_models.load_models(config), stages.prompt_set_of(config)
    stages.start(run, config, models, prompt_set)
    assert stages.generate(run, config, models, prompt_set, print) == []
    assert stages.score(run, config, models, print) == []
    own = ("random", EFFECTS, store.read(run, "scores").to_pandas().query("generator == @EFFECTS")["pair_id"].iloc[0])
    assert drop_rows(run, "scores", lambda row: (row["reward_model"], row["generator"], row["pair_id"]) != own) == 4
    evaluate(run, config)
    table = read_results(run).set_index(["model", "metric", "subset"])
    place = ("dose_slope_difference", "controlled")
    # Of a photograph and strengths 2 and 3 the oracle gives 0, 1, 1 where asked and 1, 0, 0 where not.
    assert table.loc[("oracle", *place), "value"] == pytest.approx(5 / 7)
    assert table.loc[("oracle", *place), "n"] == 12
    assert table.loc[("colorfulness", *place), "value"] == 0
    pairs = columns.pair_table(run, columns.Judges())
    rows = pairs[pairs["controlled"] & (pairs["reward_model"] == "random")]
    both = rows.groupby("pair_id").filter(lambda part: len(part) == 2)
    slopes = [
        stats.linregress([0, 2, 3], [part["r_io_pa"].iloc[0], *part.sort_values("generator")["r_ia_pa"]]).slope
        for _, part in both.groupby("pair_id")
    ]
    row = table.loc[("random", "dose_slope_requested", "controlled")]
    assert row["value"] == pytest.approx(np.mean(slopes))
    assert row["n"] == len(slopes) == 11
    assert row["ci_low"] <= row["value"] <= row["ci_high"]
    reasons = {note["metric"]: note["reason"] for note in read_evaluation(run).notes if note["model"] == "random"}
    assert reasons["dose_n_pairs"].startswith("1 of 12 curves left out")
    dimensions = {subset for _, metric, subset in table.index if metric == "dose_slope_requested"} - {"controlled"}
    assert dimensions == {subset for *_, subset in table.index if subset.startswith("controlled/dimension=")}


def test_an_unknown_base_is_refused(run_copy):
    config = parse_run_file(read_run_file(run_copy).text)
    wrong = results.dataclasses.replace(config.evaluate, bases={EFFECTS: "nobody"})
    with pytest.raises(InputError, match="bases names 'nobody', which is no generator of this run"):
        evaluate(run_copy, results.dataclasses.replace(config, evaluate=wrong))


def test_the_evaluation_says_what_it_rests_on(run_copy):
    evaluated(run_copy)
    evaluation = read_evaluation(run_copy)
    assert evaluation.verdict_judge == "pixel"
    assert evaluation.seeds == [0]
    assert set(evaluation.material) == {"colorfulness", "random", "oracle"}
    assert len(set(evaluation.material.values())) == 1
    stored = json.loads((run_copy / "results" / "evaluation.json").read_text())
    assert stored["functional_digest"] == evaluation.functional_digest


def test_every_interval_holds_its_estimate(run_copy):
    table = evaluated(run_copy)
    known = table[table["ci_low"].notna()]
    assert len(known) > 100
    assert ((known["ci_low"] <= known["value"]) & (known["value"] <= known["ci_high"])).all()
    assert np.isfinite(table["value"]).all()
    assert pd.Series(table["n"]).gt(0).all()
    assert not table.index.duplicated().any()
    assert math.isnan(table.loc[(EFFECTS, "n_pairs", "all"), "ci_low"])
