"""The ranking of small run folders beside the published figures."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from widespectrum import store
from widespectrum.config import read_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.results import _inputs
from widespectrum.types import MetricResult, Prompt

RANK = Path(__file__).resolve().parents[2] / "leaderboard" / "rank.py"
SPECS = {
    "generators": {"plain": "folder:plain@v1", "vivid": "folder:vivid@v1", "bleak": "folder:bleak@v1"},
    "reward_models": {"taste": "weightless:taste@v1", "oracle": "weightless:oracle@v1"},
    "judges": {"rule": "rule:rule@v1", "pixel": "pixel:pixel@v1"},
}


@pytest.fixture(scope="module")
def rank() -> Callable[..., pa.Table]:
    """`rank` loaded by path, as the command line does."""
    spec = importlib.util.spec_from_file_location("rank_under_test", RANK)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rank


def result(model: str, metric: str, value: float, half_width: float = math.nan, **fields: Any) -> MetricResult:
    return MetricResult(
        **{
            "metric": metric,
            "model": model,
            "value": value,
            "ci_low": value - half_width,
            "ci_high": value + half_width,
            "level": 0.95,
            "n": 40,
            "subset": "all",
            **fields,
        }
    )


def write_run(
    folder: Path, results: Iterable[MetricResult], evaluation: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """A finished run with these results, as `evaluate` would leave it; `changes` are made to its manifest."""
    manifest = {
        "schema_version": 1,
        "benchmark_version": "0.1.0",
        "datasets": {"prompts": "v1"},
        "specs": SPECS,
        "functional_digest": "",
        "packages": {},
        "git_commit": None,
        "dirty": None,
        "seed": 0,
        "created": "2026-01-01T00:00:00+00:00",
        "status": "complete",
        **changes,
    }
    path = store.replace(folder, "results", list(results))
    (folder / "run.toml").write_text("[evaluate]\n", encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    rests_on = {
        "inputs": _inputs(folder, read_run_file(folder)),
        "results": hashlib.sha256(path.read_bytes()).hexdigest(),
        "functional_digest": "f" * 64,
        "benchmark_version": "0.1.0",
        "verdict_judge": "rule",
        "seeds": [0],
        "material": {"taste": "1" * 64, "oracle": "1" * 64},
        "notes": [],
        **(evaluation or {}),
    }
    (folder / "results" / "evaluation.json").write_text(json.dumps(rests_on), encoding="utf-8")
    return folder


def successes(**rates: tuple[float, float]) -> list[MetricResult]:
    return [result(model, "success_rate", *rate) for model, rate in rates.items()]


def of_runs(table: pa.Table, **where: Any) -> list[dict[str, Any]]:
    wanted = {"tier": "run", **where}
    return [row for row in table.to_pylist() if all(row[column] == value for column, value in wanted.items())]


def places(table: pa.Table, board: str = "generators") -> dict[str, tuple[int | None, ...]]:
    headlines = of_runs(table, board=board, headline=True)
    return {row["model"]: (row["tie_group"], row["rank_low"], row["rank_high"]) for row in headlines}


def page_line(out: Path, start: str) -> list[str]:
    """The cells of the one table line that starts like this."""
    lines = (out / "ranking.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_without_runs_the_published_figures_stand_alone(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    table = rank([], out=tmp_path / "new" / "folder")
    rows = table.to_pylist()
    assert {row["tier"] for row in rows} == {"published", "pending"}
    published = [row for row in rows if row["tier"] == "published"]
    assert len({row["model"] for row in published if row["board"] == "generators"}) == 13
    assert len({row["model"] for row in published if row["board"] == "reward_models"}) == 9
    assert len([row for row in rows if row["tier"] == "pending"]) == 7
    unknown = ("ci_low", "ci_high", "level", "tie_group", "rank_low", "rank_high")
    assert all(row[column] is None for row in rows for column in unknown)
    assert all(row["source"] for row in rows)
    page = (tmp_path / "new" / "folder" / "ranking.md").read_text(encoding="utf-8")
    assert page.count("No runs yet.") == 2
    assert page.count("### Published, not recomputed") == 2
    assert page.count("no interval, no rank") == 2
    assert "### Pending: announced, no figures yet" in page


def test_published_names_and_figures(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    rows = rank([], out=tmp_path).to_pylist()
    figures = {(row["board"], row["model"], row["metric"]): row["value"] for row in rows}
    assert figures["generators", "nano-banana", "success_rate"] == 0.99
    assert figures["generators", "nano-banana", "delta_reward/hpsv2.1"] == -0.073
    assert figures["generators", "seedream-4", "reward_after/hpsv3"] == 5.21
    assert figures["reward_models", "hpsv3", "f1_weighted"] == 0.541
    assert figures["reward_models", "hps", "f1"] == 0.91
    assert ("reward_models", "hpsv3", "f1") not in figures
    assert ("reward_models", "gpt-5-chat", "auroc") not in figures
    page = (tmp_path / "ranking.md").read_text(encoding="utf-8")
    assert "delta_reward/hpsv2.1 of nano-banana: " in page and "-0.075" in page
    assert page_line(tmp_path, "gpt-image-1.5")[1:4] == ["–", "–", "-14.499"]
    order = [page.index(f"\n| {model} |") for model in ("nano-banana", "flux-krea", "dance-flux", "qwen-image")]
    assert order == sorted(order)


def test_both_files_hold_what_is_returned_and_are_the_same_again(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", successes(plain=(0.5, 0.1)))
    table = rank([run], out=tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "ranking.parquet").equals(table)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ranking.md", "ranking.parquet"]
    first = [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())]
    rank([run], out=tmp_path / "out")
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == first


def test_overlapping_intervals_share_a_tie_group_from_the_top(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    # bleak reaches vivid's interval but not that of plain, the best of the first group.
    results = successes(plain=(0.9, 0.05), vivid=(0.82, 0.05), bleak=(0.75, 0.05))
    table = rank([write_run(tmp_path / "run", results)], out=tmp_path / "out")
    assert places(table) == {"plain": (1, 1, 2), "vivid": (1, 1, 2), "bleak": (2, 3, 3)}
    assert page_line(tmp_path / "out", "3")[1:3] == ["bleak", "0.750 (0.700 to 0.800)"]


def test_intervals_that_touch_are_a_tie_and_apart_are_none(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    touching = write_run(tmp_path / "a", successes(plain=(0.75, 0.125), vivid=(0.5, 0.125)))
    apart = write_run(tmp_path / "b", successes(plain=(0.75, 0.125), vivid=(0.5, 0.1249)))
    assert places(rank([touching], out=tmp_path / "out")) == {"plain": (1, 1, 2), "vivid": (1, 1, 2)}
    assert places(rank([apart], out=tmp_path / "out")) == {"plain": (1, 1, 1), "vivid": (2, 2, 2)}


def test_without_an_interval_or_headline_there_is_no_place(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    results = [*successes(plain=(0.5, 0.1), vivid=(0.9, math.nan)), result("bleak", "delta_reward/taste", -1.0, 0.5)]
    table = rank([write_run(tmp_path / "run", results)], out=tmp_path / "out")
    assert places(table) == {"plain": (1, 1, 1), "vivid": (None, None, None)}
    page = (tmp_path / "out" / "ranking.md").read_text(encoding="utf-8")
    assert "| not ranked | vivid | 0.900 (no interval) |" in page
    assert "| not ranked | bleak | – |" in page
    assert "| bleak | -1.000 (-1.500 to -0.500) |" in page
    (row,) = of_runs(table, model="vivid")
    assert row["ci_low"] is None and row["ci_high"] is None


def test_reward_models_are_listed_by_their_most_trustworthy_subset(
    rank: Callable[..., pa.Table], tmp_path: Path
) -> None:
    def both_ways(model: str, value: float, subset: str) -> MetricResult:
        return result(model, "both_ways_accuracy", value, 0.05, subset=subset)

    results = [
        both_ways("taste", 0.9, "all"),
        both_ways("taste", 0.1, "controlled"),
        both_ways("taste", 0.3, "verified"),
        both_ways("taste", 0.95, "controlled/dimension=clarity"),
        both_ways("oracle", 0.8, "all"),
        result("taste", "prior_over_match", 2.5, 0.5, subset="controlled"),
        result("taste", "prior_over_match", 9.0, 0.5, subset="all"),
    ]
    table = rank([write_run(tmp_path / "run", results)], out=tmp_path / "out")
    headlines = {row["model"]: row["subset"] for row in of_runs(table, headline=True)}
    assert headlines == {"taste": "controlled", "oracle": "all"}
    # Different subsets are not compared: each is alone on its own.
    assert places(table, "reward_models") == {"taste": (1, 1, 1), "oracle": (1, 1, 1)}
    page = (tmp_path / "out" / "ranking.md").read_text(encoding="utf-8")
    assert "| 1 | taste | 0.100 (0.050 to 0.150) | 2.500 (2.000 to 3.000) | controlled |" in page
    assert "| 1 | oracle | 0.800 (0.750 to 0.850) | – | all |" in page


@pytest.mark.parametrize(
    ("evaluation", "changes"),
    [
        ({}, {"datasets": {"prompts": "v2"}}),
        ({}, {"specs": {**SPECS, "judges": {"rule": "rule:rule@v2"}}}),
        ({"verdict_judge": "pixel"}, {}),
        ({"verdict_judge": ""}, {}),
        ({"benchmark_version": "0.2.0"}, {}),
        ({"functional_digest": "e" * 64}, {}),
        ({"seeds": [0, 1]}, {}),
    ],
)
def test_runs_on_other_material_are_not_compared(
    rank: Callable[..., pa.Table], tmp_path: Path, evaluation: dict[str, Any], changes: dict[str, Any]
) -> None:
    first = write_run(tmp_path / "first", successes(plain=(0.9, 0.01)))
    second = write_run(tmp_path / "second", successes(vivid=(0.1, 0.01)), evaluation, **changes)
    assert places(rank([first, second], out=tmp_path / "out")) == {"plain": (1, 1, 1), "vivid": (1, 1, 1)}
    page = (tmp_path / "out" / "ranking.md").read_text(encoding="utf-8")
    assert "- Set 1: benchmark" in page and "- Set 2: benchmark" in page


def test_generators_are_compared_whatever_else_their_runs_hold(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    """Other generators, other judges beside the one whose verdicts count, and other reward models change nothing."""
    specs = {
        "generators": {"vivid": "folder:vivid@v1"},
        "reward_models": {},
        "judges": {"mine": SPECS["judges"]["rule"], "x": "pixel:pixel@v9"},
    }
    first = write_run(tmp_path / "first", successes(plain=(0.9, 0.01)))
    rests_on = {"material": {}, "verdict_judge": "mine"}
    second = write_run(tmp_path / "second", successes(vivid=(0.1, 0.01)), rests_on, specs=specs, seed=7)
    assert places(rank([first, second], out=tmp_path / "out")) == {"plain": (1, 1, 1), "vivid": (2, 2, 2)}


def test_reward_models_are_compared_on_the_same_image_pairs(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    def write(name: str, model: str, value: float, **evaluation: Any) -> Path:
        return write_run(tmp_path / name, [result(model, "both_ways_accuracy", value, 0.01)], evaluation)

    first, same = write("first", "taste", 0.9), write("same", "oracle", 0.1)
    other = write("other", "oracle", 0.1, material={"oracle": "2" * 64})
    table = rank([first, same], out=tmp_path / "out")
    assert places(table, "reward_models") == {"taste": (1, 1, 1), "oracle": (2, 2, 2)}
    table = rank([first, other], out=tmp_path / "out")
    assert places(table, "reward_models") == {"taste": (1, 1, 1), "oracle": (1, 1, 1)}


def test_a_model_of_two_runs_is_kept_twice_by_folder(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    one = write_run(tmp_path / "monday" / "run", successes(plain=(0.5, 0.1), vivid=(0.9, 0.01)))
    two = write_run(tmp_path / "friday" / "run", successes(plain=(0.6, 0.1)))
    table = rank([one, two], out=tmp_path / "out")
    assert set(places(table)) == {"plain (monday/run)", "plain (friday/run)", "vivid"}
    assert {row["source"] for row in of_runs(table)} == {"run monday/run", "run friday/run"}


def test_judges_have_no_board_and_photo_effects_are_marked(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    specs = {**SPECS, "generators": {"photo-effects": "photo-effects:photo-effects@v1"}}
    results = [*successes(**{"photo-effects": (0.5, 0.1)}), result("rule", "position_bias_rate", 0.2, 0.1)]
    table = rank([write_run(tmp_path / "run", results, specs=specs)], out=tmp_path / "out")
    (row,) = of_runs(table)
    assert (row["model"], row["note"]) == ("photo-effects", "illustration: classical effects on photographs")
    specs = {**SPECS, "generators": {"plain": "folder:photo-effects@v1?not=%22photo-effects%22"}}
    table = rank([write_run(tmp_path / "plain", successes(plain=(0.5, 0.1)), specs=specs)], out=tmp_path / "out")
    assert [row["note"] for row in of_runs(table)] == [""]


def test_the_page_shows_coverage_and_the_count_of_the_headline(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    results = [
        result("plain", "success_rate", 0.5, 0.1, n=17),
        result("plain", "coverage/verdict", 0.425, n=40),
        result("vivid", "coverage/verdict", 0.0, n=40),
    ]
    rank([write_run(tmp_path / "run", results)], out=tmp_path / "out")
    page = (tmp_path / "out" / "ranking.md").read_text(encoding="utf-8")
    assert "| places | model | success_rate | coverage/verdict | subset | n |" in page
    assert "| 1 | plain | 0.500 (0.400 to 0.600) | 0.425 | all | 17 |" in page
    assert "| not ranked | vivid | – | 0.000 | all | – |" in page


def test_names_cannot_break_the_page(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    name = "a|b\n<script>[x](y)"
    specs = {**SPECS, "generators": {name: "folder:plain@v1"}}
    rank([write_run(tmp_path / "run", successes(**{name: (0.5, 0.1)}), specs=specs)], out=tmp_path / "out")
    page = (tmp_path / "out" / "ranking.md").read_text(encoding="utf-8")
    assert "| 1 | a\\|b &lt;script&gt;\\[x\\](y) | 0.500" in page


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{not json", encoding="utf-8")


def change_results(folder: Path) -> None:
    path = folder / "results" / "results.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def add_prompts(folder: Path) -> None:
    prompt = Prompt(prompt_id="", text="a bus", pair_id="p", role="original")
    store.append(folder, "prompts", [prompt])


def set_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no run folder: it has no manifest.json"),
        (damage_manifest, "is not a manifest of widespectrum"),
        (set_json("manifest.json", extra=1), "is not a manifest of widespectrum"),
        (set_json("manifest.json", status="started"), "is unfinished"),
        (set_json("manifest.json", specs={**SPECS, "generators": {}}), "which its manifest does not list"),
        (set_json("manifest.json", specs={**SPECS, "judges": {}}), "what stands behind the judge 'rule'"),
        (set_json("results/evaluation.json", material={}), "which image pairs were scored by 'taste'"),
        (set_json("results/evaluation.json", extra=1), "is damaged"),
        (lambda folder: (folder / "results" / "evaluation.json").unlink(), "holds no results"),
        (lambda folder: (folder / "results" / "results.parquet").unlink(), "is missing"),
        (change_results, "are older than"),
        (add_prompts, "are older than"),
    ],
)
def test_a_folder_that_cannot_be_ranked_is_named_and_nothing_is_written(
    rank: Callable[..., pa.Table], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    good = write_run(tmp_path / "good", successes(plain=(0.5, 0.1)))
    results = [*successes(vivid=(0.5, 0.1)), result("taste", "both_ways_accuracy", 0.5, 0.1)]
    bad = write_run(tmp_path / "spoiled", results)
    damage(bad)
    with pytest.raises((InputError, RunFolderError), match=message) as caught:
        rank([good, bad], out=tmp_path / "out")
    assert "spoiled" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_or_is_given_twice(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", successes(plain=(0.5, 0.1)))
    with pytest.raises(RunFolderError, match="absent is no run folder"):
        rank([run, tmp_path / "absent"], out=tmp_path / "out")
    with pytest.raises(InputError, match="run is given twice"):
        rank([run, tmp_path / "." / "run"], out=tmp_path / "out")


def test_out_must_be_a_folder(rank: Callable[..., pa.Table], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="out is a file"):
        rank([], out=tmp_path / "out")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"
