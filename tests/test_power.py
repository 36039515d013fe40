"""`widespectrum power`: its figures made by hand from the stored scores, its sentences, and what it refuses."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from typer.testing import CliRunner

from widespectrum import results, runs, store
from widespectrum.cli import app
from widespectrum.columns import CELLS
from widespectrum.config import parse_run_file, read_run_file
from widespectrum.functional._adherence import MEANS
from widespectrum.importers import import_scores
from widespectrum.outcomes import GENERATOR_METRICS, REWARD_METRICS, metric_rows
from widespectrum.power import LOWER_IS_BETTER
from widespectrum.types import ModelSpec, Score

SCORES = Path(__file__).resolve().parents[2] / "shared" / "data" / "reference" / "scores_3300.csv"

GENERATORS = {"bold": 0.0, "calm": 0.8, "dull": 1.1}
MODELS = ("taste", "plain")
N_PROMPTS, N_SEEDS = 40, 3


def invoke(*arguments):
    return CliRunner().invoke(app, ["power", *(str(argument) for argument in arguments)])


def plan(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments):
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)
    return result.stderr.removeprefix("error: ").strip()


def table(text, title):
    """The rows of the table under a line that begins with `title`, cells apart by two spaces or more."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    end = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
    return [re.split(r"\s{2,}", line) for line in lines[start + 3 : end]]


def write_run(folder, value, *, n_prompts=N_PROMPTS, n_seeds=N_SEEDS, generators=tuple(GENERATORS), models=MODELS):
    """A run folder of imported scores; `value(generator, prompt, seed, cell, model)` is the score of a cell."""
    config = parse_run_file(f"[run]\nseeds = {list(range(n_seeds))}\n", str(folder / "run.toml"))
    scores = [
        Score(
            pair_id=f"external:made:{prompt}",
            generator=generator,
            image_seed=seed,
            image_role=image,
            prompt_role=asked,
            image_id=f"{prompt}:{generator}:{seed}:{image}",
            prompt_id=f"{prompt}:{asked}",
            reward_model=model,
            value=float(value(generator, prompt, seed, CELLS[image, asked], model)),
            truncated=None,
        )
        for generator in generators
        for prompt in range(n_prompts)
        for seed in range(n_seeds)
        for image, asked in CELLS
        for model in models
    ]
    with runs.locked(folder):
        runs.open_run(folder, config, datasets={}, prompts=())
        for kind, names in (("generators", generators), ("reward_models", models)):
            for name in names:
                runs.register(folder, kind, name, ModelSpec(adapter="external", name=name))
        store.append(folder, "scores", scores)
        runs.finish(folder)
    return folder


@pytest.fixture(scope="module")
def seeded_run(tmp_path_factory):
    """Three generators, forty prompts and three seeds, with known spreads of prompts and seeds."""
    rng = np.random.default_rng(0)
    prompts = {generator: rng.normal(0, 1.0, N_PROMPTS) for generator in GENERATORS}

    def value(generator, prompt, seed, cell, model):
        shift = GENERATORS[generator] + prompts[generator][prompt] if cell == "r_ia_po" else 0.0
        return shift + rng.normal(0, 0.6)

    return write_run(tmp_path_factory.mktemp("seeded") / "run", value)


def deltas(run, model="taste"):
    """r(I_a,p_o) − r(I_o,p_o) of each generator: arrays (prompts, seeds), made from the stored scores alone."""
    rows = store.read(run, "scores").to_pandas().query("reward_model == @model and prompt_role == 'original'")
    cells = rows.pivot(index=["generator", "pair_id", "image_seed"], columns="image_role", values="value")
    found = cells["wide_spectrum"] - cells["original"]
    return {name: found[name].unstack("image_seed").to_numpy() for name in GENERATORS}


# figures


def test_figures_equal_those_made_by_hand(seeded_run):
    by_generator = deltas(seeded_run)
    difference = by_generator["bold"] - by_generator["calm"]
    within = difference.var(axis=1, ddof=1).mean()
    prompt = (stats.f_oneway(*difference).statistic - 1) * within / N_SEEDS
    text = plan(
        seeded_run, "--metric", "delta_reward/taste", "--models", "bold", "--models", "calm", "--difference", "0.3,0.6"
    )
    ((name, mean, sd_prompt, sd_seed, sd_mean),) = table(text, "Differences in delta_reward/taste of 1 pair")
    assert name == "bold – calm"
    assert mean.startswith(f"{difference.mean():.3f} [")
    assert sd_mean.startswith(f"{difference.mean(axis=1).std(ddof=1):.3f} [")
    assert (sd_prompt, sd_seed) == (f"{math.sqrt(prompt):.3f}", f"{math.sqrt(within):.3f}")
    seeds = (1, 2, 4, 8)
    spreads = [math.sqrt(prompt + within / n) for n in seeds]
    needed = [
        [f"{d:g}", *(str(math.ceil(TTestPower().solve_power(d / sd, None, 0.05, 0.8))) for sd in spreads)]
        for d in (0.3, 0.6)
    ]
    assert table(text, "Prompts needed to tell two models apart") == needed
    shown = [
        [str(n), *(f"{sd * TTestPower().solve_power(None, n, 0.05, 0.8):.3g}" for sd in spreads)] for n in (60, 300)
    ]
    assert table(text, "Smallest difference that can be told") == shown


def test_of_all_pairs_the_median_and_the_worst_are_shown(seeded_run):
    by_generator = deltas(seeded_run)
    variances = {}
    for a, b in (("bold", "calm"), ("bold", "dull"), ("calm", "dull")):
        d = by_generator[a] - by_generator[b]
        within, between = d.var(axis=1, ddof=1).mean(), N_SEEDS * d.mean(axis=1).var(ddof=1)
        variances[f"{a} – {b}"] = (between - within) / N_SEEDS + within
    _, median, worst = sorted(variances, key=variances.get)
    text = plan(seeded_run, "--metric", "delta_reward/taste")
    names = [row[0] for row in table(text, "Differences in delta_reward/taste of 3 pairs")]
    assert names == [f"typical: {median}", f"hardest: {worst}"]
    cell = table(text, "Smallest difference that can be told: typical pair (hardest pair)")[0][1]
    expected = [math.sqrt(variances[name]) * TTestPower().solve_power(None, 60, 0.05, 0.8) for name in (median, worst)]
    assert cell == f"{expected[0]:.3g} ({expected[1]:.3g})"


def test_options_reach_the_test(seeded_run):
    common = (seeded_run, "--metric", "delta_reward/taste", "--models", "bold", "--models", "dull", "--seeds", "1")
    first = int(table(plan(*common, "--difference", "0.5"), "Prompts needed")[0][1])
    text = plan(*common, "--difference", "0.5", "--power", "0.9", "--comparisons", "3")
    assert int(table(text, "Prompts needed")[0][1]) > first
    assert "confidence 0.95, power 0.9, 3 comparisons;" in " ".join(text.split())
    config = parse_run_file(read_run_file(seeded_run).text + "\n[evaluate]\nconfidence_level = 0.9\n")
    try:
        before = (seeded_run / "run.toml").read_bytes()
        runs.save_run_file(seeded_run, config)
        text = plan(*common, "--difference", "0.5")
    finally:
        (seeded_run / "run.toml").write_bytes(before)
    assert int(table(text, "Prompts needed")[0][1]) < first
    assert "90 % intervals" in text


def test_every_metric_averages_to_the_result_of_that_name(run_copy):
    config = parse_run_file(read_run_file(run_copy).text + "\n[evaluate]\nn_resamples = 2\n")
    results.evaluate(run_copy, config)
    runs.save_run_file(run_copy, config)
    found = results.read_results(run_copy).set_index(["model", "metric", "subset"])["value"]
    rows = metric_rows(run_copy)
    assert {"success_rate", "delta_j_selected", "delta_reward/random", "both_ways_accuracy", "accuracy"} <= set(rows)
    for metric, values in rows.items():
        for model in values.table:
            expected = found[model, metric, values.subset or "all"]
            assert values.table[model].mean() == pytest.approx(expected, abs=1e-12), (metric, model)
    assert {values.subset for values in rows.values()} == {"", "controlled", "all"}


def test_no_mean_of_a_generator_is_forgotten():
    # a failed call says nothing about the generator
    assert {*GENERATOR_METRICS, *REWARD_METRICS} == {*MEANS} - {"failure_rate"}
    assert {*LOWER_IS_BETTER} < {*MEANS}


def test_default_differences(seeded_run):
    by_generator = {name: values.mean() for name, values in deltas(seeded_run).items()}
    gaps = [abs(by_generator[a] - by_generator[b]) for a, b in (("bold", "calm"), ("bold", "dull"), ("calm", "dull"))]
    rows = table(plan(seeded_run, "--metric", "delta_reward/taste"), "Prompts needed")
    assert [row[0] for row in rows] == [f"{float(f'{gap:.2g}'):g}" for gap in np.quantile(gaps, [0.1, 0.25, 0.5])]
    rows = table(plan(seeded_run, "--metric", "both_ways_accuracy"), "Prompts needed")
    assert [row[0] for row in rows] == ["0.02", "0.05", "0.1"]


def test_a_ranking_knows_which_end_is_best(tmp_path):
    # dull is highest on every prompt but the first, where bold is so low that it has the lowest mean of all
    def value(generator, prompt, seed, cell, model):
        if cell != "r_ia_po":
            return 0.0
        return {"bold": -100 if prompt == 0 else 1.0, "calm": 0.5, "dull": 2.0}[generator] + prompt % 3 * len(model)

    run = write_run(tmp_path / "run", value, n_prompts=30, n_seeds=1)
    rows = table(plan(run, "--metric", "delta_reward/taste"), "Ranking of 3 models on fewer prompts")
    # less reward is better: bold stays best only in draws with the first prompt
    ((_, _, same_best, others),) = [row for row in rows if row[0] == "20"]
    assert float(same_best) == pytest.approx(20 / 30, abs=0.04)
    assert others == "–"


# sentences


def test_one_seed_is_said_to_be_one(tmp_path, seeded_run):
    rng = np.random.default_rng(1)
    run = write_run(tmp_path / "run", lambda *_: rng.normal(), n_seeds=1)
    text = plan(run)
    assert text.splitlines()[1].startswith("Differences in delta_reward/plain of 3 pairs of generators; 95 % intervals")
    assert table(text, "Differences")[0][2:4] == ["–", "–"]
    assert len(table(text, "Prompts needed")[0]) == 2
    assert "One seed per prompt: what seeds add cannot be told from what prompts add." in text
    assert "One seed per prompt" not in plan(seeded_run)
    assert refused(run, "--seeds", "2,4") == (
        "--seeds: expected 1, as a run with one seed cannot say what more would add, got 2"
    )


def test_what_a_plan_cannot_say(tmp_path):
    rng = np.random.default_rng(2)
    run = write_run(tmp_path / "few", lambda *_: rng.normal(), n_prompts=4)
    runs.write_manifest(run, dataclasses.replace(runs.read_manifest(run), status="started"))
    few = plan(run)
    for sentence in (
        "From 4 prompts.",
        "All models have 4 prompts in common: too few to rank them on fewer.",
        "So few prompts cannot stand for others",
        "This run is not finished: the plan rests on what is there.",
        "To tell all models apart at once give --comparisons 3.",
    ):
        assert sentence in few
    assert table(plan(write_run(tmp_path / "more", lambda *_: rng.normal(), n_prompts=9)), "Ranking")[-1] == [
        "With 9 prompts nobody can say how 60 rank models."
    ]


def test_a_negative_part_of_the_prompts_is_named(tmp_path):
    def value(generator, prompt, seed, cell, model):
        return (-1) ** seed * (prompt + 1) * GENERATORS[generator] if cell == "r_ia_po" else 0.0

    run = write_run(tmp_path / "run", value, n_seeds=2)
    text = plan(run, "--models", "bold", "--models", "dull", "--difference", "0.1")
    assert table(text, "Differences")[0][2] == "0.000"
    assert "SD of prompts, bold – dull: the estimate is below 0" in text


def test_models_that_never_differ_are_left_out_or_refused(tmp_path):
    def value(generator, prompt, seed, cell, model):
        return prompt**2 if cell == "r_ia_po" and generator == "bold" and model == "taste" else 0.0

    run = write_run(tmp_path / "run", value, n_seeds=1)
    text = plan(run)
    assert "Differences in delta_reward/taste of 3 pairs" in text
    assert "Left out: 1 pair of models whose difference is the same on every prompt." in text
    assert refused(run, "--metric", "delta_reward/plain") == (
        "the difference in delta_reward/plain is the same on every prompt: there is no variance to plan with"
    )


def test_models_with_equal_means(tmp_path):
    def value(generator, prompt, seed, cell, model):
        return 1.0 if cell == "r_ia_po" and prompt % 3 == "bcd".index(generator[0]) else 0.0

    run = write_run(tmp_path / "run", value, n_prompts=39, n_seeds=1)
    text = plan(run, "--metric", "delta_reward/taste", "--difference", "0.1")
    assert "The models have equal means: there is no ranking that fewer prompts could repeat." in text
    assert refused(run, "--metric", "delta_reward/taste") == (
        "the models do not differ in delta_reward/taste: say with --difference what to plan for"
    )


def test_draws_that_tie_all_models_are_counted(tmp_path):
    def value(generator, prompt, seed, cell, model):
        return float(cell == "r_ia_po" and generator == "bold" and prompt < 4)

    text = plan(write_run(tmp_path / "run", value, n_seeds=1), "--metric", "delta_reward/taste")
    assert re.search(r"^\d+ of 2000 draws of 5 prompts tie all models and are left out of Kendall's tau\.$", text, re.M)


# what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metric", "success"), "--metric: expected one that two models of {run} have (delta_reward/plain, "),
        (("--models", "bold"), "--models: expected at least two different names, got bold"),
        (("--models", "bold", "--models", "bold"), "--models: expected at least two different names, got bold, bold"),
        (
            ("--models", "bold", "--models", "bald", "--metric", "reward_after/taste"),
            "--models: expected generators with values of reward_after/taste (bold, calm, dull), got 'bald'",
        ),
        (
            ("--models", "bold", "--models", "calm", "--metric", "both_ways_accuracy"),
            "--models: expected reward models with values of both_ways_accuracy (plain, taste), got 'bold'",
        ),
        (("--difference", "0.1;0.2"), "--difference: expected numbers with commas between them, such as 0.05,0.1; got"),
        (("--difference", "0.1,0"), "--difference: expected numbers above 0, got 0"),
        (("--difference", "nan"), "--difference: expected numbers above 0, got nan"),
        (("--difference", "1e-12"), "--difference: expected more than 1e-12 beside a standard deviation of "),
        (("--seeds", "1,x"), "--seeds: expected numbers with commas between them, such as 1,2,4; got '1,x'"),
        (("--seeds", "0"), "--seeds: expected whole numbers of at least 1, got 0"),
        (("--power", "1"), "--power: expected a number between 0 and 1, such as 0.8, got 1"),
        (("--power", "0.01"), "--power: expected more than 0.05, the chance of a rejection without any difference"),
        (("--comparisons", "0"), "--comparisons: expected a whole number of at least 1, got 0"),
    ],
)
def test_wrong_options(seeded_run, options, message):
    assert refused(seeded_run, *options).startswith(message.format(run=seeded_run))


def test_what_is_no_run_or_has_nothing_to_compare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused("none") == "none is no run folder: it has no manifest.json"
    rng = np.random.default_rng(3)
    lonely = write_run(tmp_path / "lonely", lambda *_: rng.normal(), n_prompts=1, n_seeds=1)
    assert refused(lonely) == (
        "no two models have delta_reward/plain on two prompts in common: a plan needs the spread over prompts"
    )
    alone = write_run(tmp_path / "alone", lambda *_: rng.normal(), generators=("bold",), models=("taste",))
    assert refused(alone) == (
        f"{alone} has no metric of two models or more: a plan needs two generators or reward models"
    )


# the authors' scores


@pytest.mark.parametrize(
    ("model", "tau", "rest"), [("hpsv3", 0.86, 0.82), ("hpsv2.1", 0.87, 0.85), ("imagereward", 0.79, 0.73)]
)
def test_sixty_prompts_rank_the_generators_of_the_paper(tmp_path, model, tau, rest):
    if not SCORES.is_file():
        pytest.skip("the released scores are not at hand")
    import_scores(SCORES, tmp_path / "paper")
    rows = table(plan(tmp_path / "paper", "--metric", f"delta_reward/{model}"), "Ranking of 10 models")
    (lite,) = [row for row in rows if row[0] == "60 (lite)"]
    assert float(lite[1].split()[0]) == pytest.approx(tau, abs=0.01)
    assert float(lite[3]) == pytest.approx(rest, abs=0.01)
