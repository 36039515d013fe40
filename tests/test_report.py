"""The report of a small run: its figures are those of the results, its texts are texts, it loads nothing."""

import dataclasses
import math
import re
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

from tests.report_page import Page
from widespectrum import report, results, run_models, runs, stages
from widespectrum.config import parse_run_file
from widespectrum.errors import MissingExtraError, RunFolderError
from widespectrum.report import curves, gallery, sentences
from widespectrum.report.material import read_material
from widespectrum.tables import format_number

HOSTILE = '<script>alert("cat")</script> & <b>a cat</b>'
RUN_FILE = """
run = {{ seeds = [3] }}
prompts = {{ set = "photographs", photos = "{photos}", captions = "{captions}" }}
generators = [
  {{ name = "identity", size = 64 }},
  {{ name = "photo-effects", strength = 1, size = 64 }},
  {{ name = "photo-effects", strength = 3, size = 64 }},
]
reward_models = [{{ name = "colorfulness" }}, {{ name = "random" }}, {{ name = "oracle" }}]
judges = [{{ name = "pixel" }}, {{ name = "rule", reward_model = "colorfulness" }}]
evaluate = {{ n_resamples = 60 }}
"""


def make_run(folder, photos):
    captions = folder / "captions.csv"
    quoted = HOSTILE.replace('"', '""')
    captions.write_text(f'file,caption\ngarden.png,"{quoted}"\nstreet.png,a street in the sun\n', encoding="utf-8")
    config = parse_run_file(RUN_FILE.format(photos=photos, captions=captions))
    run, models, prompt_set = folder / "run", run_models.load_models(config), stages.prompt_set_of(config)
    stages.start(run, config, models, prompt_set)
    failures = stages.generate(run, config, models, prompt_set, print)
    failures += stages.score(run, config, models, print) + stages.judge(run, config, models, print)
    assert failures == []
    results.evaluate(run, config)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    return make_run(tmp_path_factory.mktemp("report"), photos)


@pytest.fixture(scope="module")
def page(run):
    return Page(report.write(run))


@pytest.fixture(scope="module")
def material(run):
    return read_material(run)


@pytest.fixture(scope="module")
def imported(run, tmp_path_factory):
    """The same scores as if they came from a table: no prompts, images or verdicts."""
    bare = tmp_path_factory.mktemp("imported") / "run"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("prompts", "images", "verdicts", "report.html"))
    manifest = runs.read_manifest(bare)
    external = {label: f"external:{number}" for number, label in enumerate(manifest.specs["generators"])}
    runs.write_manifest(bare, dataclasses.replace(manifest, specs=manifest.specs | {"generators": external}))
    results.evaluate(bare, read_material(run).config)
    return bare


def number(text):
    return float(text.replace("−", "-"))


def assert_shows(cell, row):
    """The cell holds the estimate as data, and rounded as text, with its interval."""
    data, text = cell
    assert float(data) == row.value
    found = [number(part) for part in re.findall(r"−?\d+\.?\d*", text)]
    digits = len(text.split()[0].partition(".")[2])
    expected = [row.value] + ([] if math.isnan(row.ci_low) else [row.ci_low, row.ci_high])
    assert found == pytest.approx(expected, abs=0.5000001 * 10**-digits)


def assert_table_equals(table, estimates, metrics, subset):
    """Every cell equals its row of the results; what the results lack is a dash. Returns the number of estimates."""
    shown = 0
    for row in table[1:]:
        model = row[0][1].strip()
        for cell, metric in zip(row[1:], metrics, strict=True):
            if (model, subset, metric) in estimates.index:
                assert_shows(cell, estimates.loc[(model, subset, metric)])
                shown += 1
            else:
                assert cell[0] == ""
                assert cell[1].strip().startswith("–")
    return shown


@pytest.fixture(scope="module")
def estimates(run):
    """The results, and the tie groups as if they were a metric."""
    found = results.read_results(run)
    groups = found[found["tie_group"].notna()]
    groups = groups.assign(metric="tie_group", value=groups["tie_group"], ci_low=math.nan, ci_high=math.nan)
    return pd.concat([found, groups]).set_index(["model", "subset", "metric"]).sort_index()


def test_it_loads_nothing_from_outside(page):
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "audio", "video", "source")
        assert attrs.get("src", "data:").startswith("data:")
        targets = [attrs[name] for name in ("href", "xlink:href") if name in attrs]
        assert tag == "a" or all(target.startswith("#") for target in targets)
    assert re.findall(r"https?://[^\s\"<]+", page.source) == ["https://arxiv.org/abs/2512.11883"]
    assert "@import" not in page.source
    policy = next(meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_the_reward_model_table_shows_the_results_of_the_headline_subset(page, estimates):
    metrics = ["image_prior", "prompt_match", "prior_over_match", "accuracy_under_original"]
    metrics += ["accuracy_under_wide_spectrum", "both_ways_accuracy", "tie_group"]
    table = page.tables[0]
    assert [row[0][1] for row in table[1:]] == ["colorfulness", "oracle", "random"]
    # all of three models but the ratio of the blind one and of the random one
    assert assert_table_equals(table, estimates, metrics, "controlled") == 7 * 3 - 2
    sizes = [int(estimates.loc[("oracle", "controlled", name), "value"]) for name in ("n_pairs", "n_prompts")]
    assert "({} pairs, {} captions)".format(*sizes) in page.text
    assert "undefined: the mean prompt match is 0" in page.text


def test_every_two_reward_models_are_compared(page, estimates):
    names = [
        "both_ways_accuracy_difference",
        "both_ways_accuracy_cluster_p_holm",
        "accuracy_under_wide_spectrum_difference",
        "accuracy_under_wide_spectrum_cluster_p_holm",
        "prior_over_match_difference",
    ]
    head, *rows = page.tables[1]
    pairs = [row[0][1].strip().split(" – ") for row in rows]
    assert pairs == [["colorfulness", "oracle"], ["colorfulness", "random"], ["oracle", "random"]]
    for (model, rival), row in zip(pairs, rows, strict=True):
        first = [[("", model), *row[1:]]]
        shown = assert_table_equals([head, *first], estimates, [f"{name}/{rival}" for name in names], "controlled")
        assert shown == 4


def test_the_generator_tables_show_the_results(page, estimates):
    metrics = ["success_rate", "coverage/verdict", "refusal_rate", "failure_rate", "delta_j_selected", "tie_group"]
    assert assert_table_equals(page.tables[2], estimates, metrics, "all") == 18
    assert len(page.tables) == 3 + 1 + 3 + 1
    metrics = ["success_rate", "success_rate/rule[reward_model=colorfulness]"]
    assert assert_table_equals(page.tables[3], estimates, metrics, "all") > 2
    for table, model in zip(page.tables[4:7], ("colorfulness", "oracle", "random"), strict=True):
        metrics = [f"{metric}/{model}" for metric in ("delta_reward", "reward_after", "escape_rate", "polish_overlap")]
        assert assert_table_equals(table, estimates, metrics, "all") == 12


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (-0.035, 0.01, "-0.035"),
        (12.7818, 0.6, "12.782"),
        (-13.55, 17, "-13.55"),
        (-79.4, 2700, "-79"),
        (1434.2, 3, "1434.2"),
        (-0.0001, 0.01, "0.000"),
    ],
)
def test_digits_are_those_of_the_paper_unless_the_interval_is_wide(value, width, text):
    assert format_number(value, width) == text


def test_hostile_texts_are_shown_and_not_obeyed(page):
    assert HOSTILE in page.text
    assert "<script>alert" not in page.source
    assert "<b>a cat" not in page.source
    assert page.source.count("<script") == 1


def test_two_reports_are_equal_whatever_matplotlib_was_told(run, page):
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.facecolor": "red"}):
        assert report.write(run).read_text(encoding="utf-8") == page.source


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', page.source)
    assert used
    assert {a or b for a, b in used} <= set(ids)


def test_pictures_and_plots_have_words(page):
    assert page.of("html")[0]["lang"] == "en"
    assert all(attrs["alt"] for attrs in page.of("img"))
    plots = [attrs for attrs in page.of("div") if attrs.get("role") == "img"]
    # prior against match, three dose responses, one heatmap
    assert len(plots) == len(page.of("svg")) == 5
    assert all(attrs["aria-label"] for attrs in plots)


def test_the_prior_plot_says_who_is_not_in_it(page, estimates):
    prior = estimates.loc[("colorfulness", "controlled", "image_prior_standardised")].value
    assert any(f"colorfulness: Q {prior:.2f}, X 0.00" in attrs.get("aria-label", "") for attrs in page.of("div"))
    assert "has no spread to divide by: oracle." in page.text


def test_the_heatmap_holds_the_accuracies_by_dimension(page, estimates):
    words = next(a["aria-label"] for a in page.of("div") if a.get("aria-label", "").startswith("Accuracy under p_a"))
    for dimension in ("clarity", "richness"):
        place = (slice(None), f"controlled/dimension={dimension}", "accuracy_under_wide_spectrum")
        values = estimates.loc[place, "value"]
        expected = ", ".join(f"{model} {values.xs(model).item():.2f}" for model in ("colorfulness", "oracle", "random"))
        assert f"{dimension}: {expected}" in words
    assert "background:" not in words
    assert "No pair of this subset asks for: background, detail realism, emotion" in page.text


def test_the_notes_say_what_weakens_the_figures(page):
    assert "2 plain captions cannot stand for any population: the intervals merely illustrate" in page.text
    assert "with the pixel judge is circular" in page.text
    assert "pairs whose image shows by construction what was asked for" in page.text
    assert "Verdicts and dimension scores are those of the judge pixel." in page.text
    assert "95 % intervals" in page.text


def test_a_rule_judge_is_called_a_repetition(material, monkeypatch):
    evaluation = results.read_evaluation(material.run)
    ruled = dataclasses.replace(evaluation, verdict_judge="rule[reward_model=colorfulness]")
    monkeypatch.setattr("widespectrum.tables.read_evaluation", lambda run: ruled)
    said = " ".join(sentences.cautions(material))
    assert "agreement of colorfulness with it says nothing" in said
    assert "circular" not in said


def test_absent_estimates_are_grouped_by_reason(material):
    found = sentences.gaps(material)
    absent = [metric for _, _, metric in material.reasons if not metric.partition("/")[0].endswith("_caution")]
    assert sum(gap.estimates for gap in found) == len(absent)
    assert len({gap.reason for gap in found}) == len(found) < 40


def test_every_pair_is_in_the_gallery_with_its_four_scores(run, page, material):
    cards = page.by_class("card")
    every = material.image_pairs
    assert len(cards) == len(every) == 2 * (11 + 6 + 6)
    assert len(page.of("img")) == 2 * len(cards)
    assert f"All {len(every)} image pairs." in page.text
    rows = material.pairs[material.pairs["reward_model"] == "random"].reset_index(drop=True)
    prior = (rows.r_ia_po + rows.r_ia_pa - rows.r_io_po - rows.r_io_pa) / 2
    match = (rows.r_ia_pa - rows.r_io_pa - rows.r_ia_po + rows.r_io_po) / 2
    assert [float(card["data-q2"]) for card in cards] == pytest.approx(prior.tolist(), abs=1e-12)
    assert [float(card["data-x2"]) for card in cards] == pytest.approx(match.tolist(), abs=1e-12)
    assert [card["data-generator"] for card in cards] == rows["generator"].tolist()
    verdicts = ["" if value is None else str(value) for value in rows["verdict"]]
    assert [card["data-verdict"] for card in cards] == verdicts
    assert set(verdicts) >= {"", "0.5", "1.0"}


def test_the_preferred_image_is_marked_under_each_prompt(material):
    row = material.pairs.iloc[[0]].assign(r_io_po=2.0, r_io_pa=1.0, r_ia_po=1.0, r_ia_pa=1.0)
    ((scores,),) = gallery._score_rows(row).values()
    assert scores.scores == ["2.000", "1.000", "1.000", "1.000"]
    assert scores.prefers == [True, False, False, False]


def test_refused_prompts_are_listed_with_their_reason(run, page):
    rows = gallery.read_refused(run)
    assert len(rows) == 2 * 5
    assert {len(row.generators) for row in rows} == {2}
    assert "Refused prompts (10)" in page.text
    assert "classical image processing cannot change emotion" in page.text


def test_a_large_gallery_is_drawn_at_random_and_never_by_score(material, monkeypatch, tmp_path):
    monkeypatch.setattr(gallery, "LIMIT", 20)
    pairs = material.image_pairs
    chosen = gallery._choose(pairs)
    assert len(chosen) == 20
    other = pairs.assign(r_ia_pa=-pairs["r_ia_pa"], verdict=0.0)
    assert gallery._choose(other).index.tolist() == chosen.index.tolist()
    # every pair but the last one drawn comes with all its generators
    whole = chosen.groupby("pair_id").size() == pairs.groupby("pair_id").size().reindex(chosen["pair_id"].unique())
    assert (~whole).sum() <= 1
    page = Page(report.write(shutil.copytree(material.run, tmp_path / "run")))
    assert "20 of 46 image pairs, drawn at random (seed 0) by prompt pair, never by score." in page.text
    assert len(page.by_class("card")) == 20


def test_the_slopes_stand_beside_the_curves(page, estimates):
    metrics = ["dose_slope_requested", "dose_slope_unrequested", "dose_slope_difference"]
    metrics += ["dose_slope_difference_standardised", "dose_spearman_requested", "dose_spearman_unrequested"]
    table = page.tables[-1]
    # of the oracle's nothing can be standardised
    assert assert_table_equals(table, estimates, metrics, "controlled") == 6 * 3 - 1
    by_model = {row[0][1].strip(): [float(cell[0] or "nan") for cell in row[1:]] for row in table[1:]}
    assert by_model["oracle"][:3] == pytest.approx([2 / 7, -2 / 7, 4 / 7])
    assert by_model["colorfulness"][2:4] == [0, 0]


def test_without_strengths_there_are_neither_curves_nor_slopes(imported):
    page = Page(report.write(imported))
    assert "Not drawn: it needs a generator with graded effects" in page.text
    assert "Slopes of score" not in page.text


def test_a_blind_model_has_one_curve_and_the_oracle_two(material):
    by_model = {response.reward_model: response for response in curves.responses(material)}
    blind, oracle = by_model["colorfulness"], by_model["oracle"]
    assert np.array_equal(blind.under_original.mean, blind.under_wide_spectrum.mean)
    assert blind.standardised
    assert not oracle.standardised
    assert oracle.under_original.mean.tolist() == [0, -1, -1]
    assert oracle.under_wide_spectrum.mean.tolist() == [-1, 0, 0]


def test_a_run_of_scores_alone_says_what_it_lacks(imported):
    page = Page(report.write(imported))
    assert "No gallery: this run holds no images." in page.text
    assert "No prompts: their texts and the dimensions they ask for are unknown." in page.text
    assert "No verdicts: whether an image shows what was asked for is not judged." in page.text
    assert "Not drawn: which dimensions the prompts of this run ask for is unknown." in page.text
    assert page.of("img") == []
    assert "Refused prompts" not in page.text
    assert page.tables[0][1][0][1] == "colorfulness"


def test_a_run_whose_tables_changed_since_it_was_evaluated_is_refused(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("images", "report.html"))
    with pytest.raises(RunFolderError, match="older than its tables"):
        report.write(copy)


def test_the_footer_names_what_made_the_run(run, page, material):
    manifest = material.manifest
    for text in (manifest.functional_digest, manifest.created, *manifest.datasets.values()):
        assert text in page.text
    for table in manifest.specs.values():
        assert all(spec in page.text for spec in table.values())
    assert "arXiv 2512.11883" in page.text
    assert "cards/photographs.md" in page.text


def test_the_file_is_small_and_alone(run, page):
    assert (run / "report.html").stat().st_size < 2_000_000
    assert not list(run.glob(".tmp-*"))


def test_a_run_that_is_not_evaluated_is_refused(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("results", "report.html"))
    with pytest.raises(RunFolderError, match="holds no results: run `widespectrum evaluate"):
        report.write(copy)
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize(("module", "name"), [("jinja2", "Jinja2"), ("matplotlib.style", "matplotlib")])
def test_a_missing_package_is_named_with_the_command(run, tmp_path, monkeypatch, module, name):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("report.html"))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf'{name}.*pip install "widespectrum\[demo\]"'):
        report.write(copy)
    assert not (copy / "report.html").exists()


def test_importing_it_loads_neither_plots_nor_templates():
    code = "import sys, widespectrum.report; print({'matplotlib', 'jinja2', 'skimage', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
