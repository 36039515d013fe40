"""The ranking of small run folders beside the published figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from widespectrum import store
from widespectrum.errors import InputError, RunFolderError
from widespectrum.types import Prompt

Rank = Callable[..., pa.Table]
WriteRun = Callable[..., Path]
NO_VERDICTS = [None] * 20


def wins(count: int, n: int = 20) -> list[float]:
    """Success on the first prompts alone: the better of two models wins wherever the worse one does."""
    return [1.0] * count + [0.0] * (n - count)


def of_runs(table: pa.Table, **where: Any) -> list[dict[str, Any]]:
    wanted = {"tier": "run", **where}
    return [row for row in table.to_pylist() if all(row[column] == value for column, value in wanted.items())]


def places(table: pa.Table, board: str = "generators") -> dict[str, tuple[int | None, ...]]:
    headlines = of_runs(table, board=board, headline=True)
    return {row["model"]: (row["tie_group"], row["rank_low"], row["rank_high"]) for row in headlines}


def read_page(out: Path) -> str:
    return (out / "ranking.md").read_text(encoding="utf-8")


def page_line(out: Path, model: str) -> list[str]:
    """The cells of the first table line on this model."""
    line = next(line for line in read_page(out).splitlines() if f"| {model} |" in line)
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_without_runs_the_published_figures_stand_alone(rank: Rank, tmp_path: Path) -> None:
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
    page = read_page(tmp_path / "new" / "folder")
    assert page.count("No runs yet.") == 2
    assert page.count("### Published, not recomputed") == 2
    assert page.count("no interval, no rank") == 2
    assert "### Pending: announced, no figures yet" in page


def test_published_names_and_figures(rank: Rank, tmp_path: Path) -> None:
    rows = rank([], out=tmp_path).to_pylist()
    figures = {(row["board"], row["model"], row["metric"]): row["value"] for row in rows}
    assert figures["generators", "nano-banana", "success_rate"] == 0.99
    assert figures["generators", "nano-banana", "delta_reward/hpsv2.1"] == -0.073
    assert figures["generators", "seedream-4", "reward_after/hpsv3"] == 5.21
    assert figures["reward_models", "hpsv3", "f1_weighted"] == 0.541
    assert figures["reward_models", "hps", "f1"] == 0.91
    assert ("reward_models", "hpsv3", "f1") not in figures
    assert ("reward_models", "gpt-5-chat", "auroc") not in figures
    page = read_page(tmp_path)
    assert "delta_reward/hpsv2.1 of nano-banana: " in page and "-0.075" in page
    assert page_line(tmp_path, "gpt-image-1.5")[1:4] == ["–", "–", "-14.499"]
    order = [page.index(f"\n| {model} |") for model in ("nano-banana", "flux-krea", "dance-flux", "qwen-image")]
    assert order == sorted(order)


def test_both_files_hold_what_is_returned_and_are_the_same_again(
    rank: Rank, write_run: WriteRun, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", {"plain": wins(10)})
    table = rank([run], out=tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "ranking.parquet").equals(table)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ranking.md", "ranking.parquet"]
    first = [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())]
    rank([run], out=tmp_path / "out")
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == first


def test_places_are_intervals_and_tie_groups_are_disjoint(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    """vivid is told neither from plain nor from bleak; bleak is told from plain, the best of the first group."""
    outcomes = {"plain": wins(20), "vivid": wins(16), "bleak": wins(12)}
    table = rank([write_run(tmp_path / "run", outcomes)], out=tmp_path / "out")
    assert places(table) == {"plain": (1, 1, 2), "vivid": (1, 1, 3), "bleak": (2, 2, 3)}
    shown = [page_line(tmp_path / "out", name)[:3] for name in ("plain", "vivid", "bleak")]
    assert shown == [["1–2", "1", "plain"], ["1–3", "1", "vivid"], ["2–3", "2", "bleak"]]
    assert "| places | tie group | model | success_rate |" in read_page(tmp_path / "out")


def test_outcomes_are_paired_by_their_prompts(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    """Intervals that overlap keep no two models together, and the order of the prompts in a folder plays no part."""
    captions = {f"pair {i}": f"a bus, number {i}" for i in range(20)}
    first = write_run(tmp_path / "first", {"plain": wins(14)}, captions=captions)
    turned = dict(reversed(captions.items()))
    second = write_run(tmp_path / "second", {"vivid": wins(7)[::-1]}, captions=turned)
    table = rank([first, second], out=tmp_path / "out")
    (better,), (worse,) = (of_runs(table, model=name, headline=True) for name in ("plain", "vivid"))
    assert better["ci_low"] < worse["ci_high"]
    assert places(table) == {"plain": (1, 1, 1), "vivid": (2, 2, 2)}


@pytest.mark.parametrize(("level", "groups"), [(0.95, 2), (0.99, 1)])
def test_models_are_told_apart_at_the_level_of_the_run(
    rank: Rank, write_run: WriteRun, tmp_path: Path, level: float, groups: int
) -> None:
    outcomes = {"plain": wins(14), "vivid": wins(7)}
    run = write_run(tmp_path / "run", outcomes, options=f"confidence_level = {level}")
    assert len({place[0] for place in places(rank([run], out=tmp_path / "out")).values()}) == groups


def test_the_caption_is_the_unit_of_the_tests(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    """Twenty pairs of four captions are four prompts, with which nothing can be told apart."""
    captions = {f"pair {i}": f"a bus, number {i % 4}" for i in range(20)}
    outcomes = {"plain": wins(20), "vivid": wins(0)}
    table = rank([write_run(tmp_path / "run", outcomes, captions=captions)], out=tmp_path / "out")
    assert places(table) == {"plain": (1, 1, 2), "vivid": (1, 1, 2)}
    assert {row["note"] for row in of_runs(table, headline=True)} == {"4 plain captions: too few to rank by"}


def test_enough_captions_need_no_caution(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    captions = {f"pair {i}": f"a bus, number {i}" for i in range(30)}
    table = rank([write_run(tmp_path / "run", {"plain": wins(9, 30)}, captions=captions)], out=tmp_path / "out")
    assert {row["note"] for row in of_runs(table, board="generators")} == {""}


def test_refusals_lose_and_failures_are_left_out(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    won, lost = wins(10, 10), wins(0, 10)
    outcomes = {
        "plain": [*won, *lost],
        "vivid": [*won, *["failed"] * 10],
        "bleak": ["refused"] * 10 + [1.0] * 9 + [0.5],
    }
    table = rank([write_run(tmp_path / "run", outcomes)], out=tmp_path / "out")
    rates = {row["model"]: (row["value"], row["n"]) for row in of_runs(table, metric="success_rate", subset="all")}
    assert rates == {"plain": (0.5, 20), "vivid": (1.0, 10), "bleak": (0.45, 20)}
    # vivid and plain are alike where both made images; there bleak refused
    assert places(table) == {"vivid": (1, 1, 2), "plain": (1, 1, 3), "bleak": (2, 2, 3)}


def test_models_without_a_common_request_cannot_be_told_apart(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    outcomes = {"plain": [1.0] * 10 + [None] * 10, "vivid": [None] * 10 + [0.0] * 10}
    table = rank([write_run(tmp_path / "run", outcomes)], out=tmp_path / "out")
    assert places(table) == {"plain": (1, 1, 2), "vivid": (1, 1, 2)}


def test_without_an_interval_or_headline_there_is_no_place(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    outcomes = {"plain": wins(10), "vivid": [1.0] + [None] * 19, "bleak": NO_VERDICTS}
    right = {("taste", name): wins(10) for name in outcomes}
    table = rank([write_run(tmp_path / "run", outcomes, right)], out=tmp_path / "out")
    assert places(table) == {"plain": (1, 1, 1), "vivid": (None, None, None)}
    page = read_page(tmp_path / "out")
    assert "| not ranked | – | vivid | 1.000 (no interval) |" in page
    assert "| not ranked | – | bleak | – |" in page
    assert "| bleak | -0.500 (" in page
    (row,) = of_runs(table, model="vivid", metric="success_rate", subset="all")
    assert row["ci_low"] is None and row["ci_high"] is None


def test_reward_models_are_listed_by_their_most_trustworthy_subset(
    rank: Rank, write_run: WriteRun, tmp_path: Path
) -> None:
    verdicts = {"plain": NO_VERDICTS, "vivid": [1.0] * 20, "effects": NO_VERDICTS}
    right = {
        ("taste", "plain"): wins(18),
        ("taste", "vivid"): wins(18),
        ("taste", "effects"): wins(2),
        ("reader", "plain"): wins(1),
        ("reader", "vivid"): wins(12),
        ("oracle", "plain"): wins(16),
    }
    specs = {"generators": {name: f"folder:{name}@v1" for name in ("plain", "vivid")}}
    specs["generators"]["effects"] = "photo-effects:effects@v1?strength=3"
    table = rank([write_run(tmp_path / "run", verdicts, right, specs=specs)], out=tmp_path / "out")
    headlines = of_runs(table, board="reward_models", headline=True)
    assert {row["model"]: (row["subset"], row["value"]) for row in headlines} == {
        "taste": ("controlled", 0.1),
        "reader": ("verified", 0.6),
        "oracle": ("all", 0.8),
    }
    # Different subsets are not compared: each is alone on its own.
    assert set(places(table, "reward_models").values()) == {(1, 1, 1)}
    page = read_page(tmp_path / "out")
    (ratio,) = of_runs(table, model="reader", metric="prior_over_match", subset="verified")
    assert f"| {ratio['value']:.3f} ({ratio['ci_low']:.3f} to {ratio['ci_high']:.3f}) |" in page
    assert [page.index(f"| 1 | 1 | {name} | {share}") for name, share in (("taste", "0.100"), ("reader", "0.600"))]


def test_the_same_pairs_as_other_subsets_are_not_compared(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    verdicts = {"plain": NO_VERDICTS}
    first = write_run(tmp_path / "first", verdicts, {("taste", "plain"): wins(20)})
    specs = {"generators": {"plain": "photo-effects:effects@v1?strength=3"}}
    second = write_run(tmp_path / "second", verdicts, {("oracle", "plain"): wins(2)}, specs=specs)
    table = rank([first, second], out=tmp_path / "out")
    rows = of_runs(table, board="reward_models", headline=True)
    assert {row["subset"] for row in rows} == {"all", "controlled"}
    assert len({row["comparison"] for row in rows}) == 1
    assert places(table, "reward_models") == {"taste": (1, 1, 1), "oracle": (1, 1, 1)}


@pytest.mark.parametrize(
    ("evaluation", "changes"),
    [
        ({}, {"datasets": {"prompts": "v2"}}),
        ({}, {"specs": {"judges": {"rule": "rule:rule@v2"}}}),
        ({"verdict_judge": "pixel"}, {}),
        ({"verdict_judge": ""}, {}),
        ({"benchmark_version": "0.2.0"}, {}),
        ({"functional_digest": "e" * 64}, {}),
        ({"seeds": [0, 1]}, {}),
    ],
)
def test_runs_on_other_material_are_not_compared(
    rank: Rank, write_run: WriteRun, tmp_path: Path, evaluation: dict[str, Any], changes: dict[str, Any]
) -> None:
    first = write_run(tmp_path / "first", {"plain": wins(20)})
    second = write_run(tmp_path / "second", {"vivid": wins(1)}, evaluation=evaluation, **changes)
    assert places(rank([first, second], out=tmp_path / "out")) == {"plain": (1, 1, 1), "vivid": (1, 1, 1)}
    page = read_page(tmp_path / "out")
    assert "- Set 1: benchmark" in page and "- Set 2: benchmark" in page


def test_generators_are_compared_whatever_else_their_runs_hold(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    """Other generators, other judges beside the one whose verdicts count, and other reward models change nothing."""
    first = write_run(tmp_path / "first", {"plain": wins(20)})
    judges = {"mine": "rule:rule@v1", "x": "pixel:pixel@v9"}
    verdicts, right = {"vivid": wins(1), "bleak": NO_VERDICTS}, {("oracle", "bleak"): wins(3)}
    second = write_run(tmp_path / "second", verdicts, right, specs={"judges": judges}, seed=7)
    assert places(rank([first, second], out=tmp_path / "out")) == {"plain": (1, 1, 1), "vivid": (2, 2, 2)}


def test_reward_models_are_compared_on_the_same_image_pairs(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    verdicts = {"plain": NO_VERDICTS, "vivid": NO_VERDICTS}
    first = write_run(tmp_path / "first", verdicts, {("taste", "plain"): wins(20)})
    same = write_run(tmp_path / "same", verdicts, {("oracle", "plain"): wins(2)})
    other = write_run(tmp_path / "other", verdicts, {("oracle", "vivid"): wins(2)})
    table = rank([first, same], out=tmp_path / "out")
    assert places(table, "reward_models") == {"taste": (1, 1, 1), "oracle": (2, 2, 2)}
    table = rank([first, other], out=tmp_path / "out")
    assert places(table, "reward_models") == {"taste": (1, 1, 1), "oracle": (1, 1, 1)}


def test_a_model_of_two_runs_is_kept_twice_by_folder(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    right = {("taste", "plain"): wins(20)}
    one = write_run(tmp_path / "monday" / "run", {"plain": wins(20), "vivid": wins(10)}, right)
    two = write_run(tmp_path / "friday" / "run", {"plain": wins(12)}, right)
    table = rank([one, two], out=tmp_path / "out")
    assert places(table) == {"plain (monday/run)": (1, 1, 1), "plain (friday/run)": (2, 2, 3), "vivid": (2, 2, 3)}
    assert {row["source"] for row in of_runs(table)} == {"run monday/run", "run friday/run"}


def test_judges_have_no_board_and_photo_effects_are_marked(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    def generators(text: str) -> dict[str, Any]:
        return {"generators": {"effects": text}}

    verdicts = {"effects": wins(10)}
    run = write_run(tmp_path / "run", verdicts, specs=generators("photo-effects:effects@v1?strength=3"))
    change_results(run, lambda rows: [*rows, {**rows[0], "model": "rule", "metric": "position_bias_rate"}])
    table = rank([run], out=tmp_path / "out")
    assert {row["model"] for row in of_runs(table)} == {"effects", "taste"}
    caution, mark = "20 plain captions: too few to rank by", "illustration: classical effects on photographs"
    assert {row["note"] for row in of_runs(table)} == {f"{caution}; {mark}", mark}
    text = "folder:effects@v1?not=%22photo-effects%22"
    table = rank([write_run(tmp_path / "plain", verdicts, specs=generators(text))], out=tmp_path / "out")
    assert {row["note"] for row in of_runs(table, board="generators")} == {caution, ""}


def test_the_page_shows_coverage_and_the_count_of_the_headline(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"plain": wins(5, 10) + [None] * 10, "vivid": NO_VERDICTS})
    rank([run], out=tmp_path / "out")
    page = read_page(tmp_path / "out")
    assert "failure_rate | coverage/verdict | subset | n |" in page
    cells = {name: page_line(tmp_path / "out", name) for name in ("plain", "vivid")}
    assert {name: line[6:9] for name, line in cells.items()} == {
        "plain": ["0.500", "all", "10"],
        "vivid": ["0.000", "all", "–"],
    }


def test_names_cannot_break_the_page(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    name = "a|b\n<script>[x](y)"
    specs = {"generators": {name: "folder:plain@v1"}}
    rank([write_run(tmp_path / "run", {name: wins(10)}, specs=specs)], out=tmp_path / "out")
    assert "| 1 | 1 | a\\|b &lt;script&gt;\\[x\\](y) | 0.500" in read_page(tmp_path / "out")


def change_results(folder: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the results in such a way that the run still takes them for its own."""
    rows = store.read(folder, "results").to_pylist()
    path = store.replace(folder, "results", pa.Table.from_pylist(change(rows), schema=store.SCHEMAS["results"]))
    set_json("results/evaluation.json", results=hashlib.sha256(path.read_bytes()).hexdigest())(folder)


def raise_success(folder: Path) -> None:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        is_headline = row["metric"] == "success_rate" and row["subset"] == "all"
        return {**row, "value": 0.55, "ci_high": 0.9} if is_headline else row

    change_results(folder, lambda rows: [change(row) for row in rows])


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{not json", encoding="utf-8")


def cut_results(folder: Path) -> None:
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


def forget(kind: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        specs = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["specs"]
        set_json("manifest.json", specs={**specs, kind: {}})(folder)

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no run folder: it has no manifest.json"),
        (damage_manifest, "is not a manifest of widespectrum"),
        (set_json("manifest.json", extra=1), "is not a manifest of widespectrum"),
        (set_json("manifest.json", status="started"), "is unfinished"),
        (forget("generators"), "which its manifest does not list"),
        (forget("judges"), "what stands behind the judge 'rule'"),
        (raise_success, r"the success_rate of 'vivid' \(all\) is not the mean of what its tables hold"),
        (set_json("results/evaluation.json", material={}), "which image pairs were scored by 'taste'"),
        (set_json("results/evaluation.json", extra=1), "is damaged"),
        (lambda folder: (folder / "results" / "evaluation.json").unlink(), "holds no results"),
        (lambda folder: (folder / "results" / "results.parquet").unlink(), "is missing"),
        (cut_results, "are older than"),
        (add_prompts, "are older than"),
    ],
)
def test_a_folder_that_cannot_be_ranked_is_named_and_nothing_is_written(
    rank: Rank, write_run: WriteRun, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    good, bad = (write_run(tmp_path / name, {"vivid": wins(10)}) for name in ("good", "spoiled"))
    damage(bad)
    with pytest.raises((InputError, RunFolderError), match=message) as caught:
        rank([good, bad], out=tmp_path / "out")
    assert "spoiled" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_or_is_given_twice(rank: Rank, write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"plain": wins(10)})
    with pytest.raises(RunFolderError, match="absent is no run folder"):
        rank([run, tmp_path / "absent"], out=tmp_path / "out")
    with pytest.raises(InputError, match="run is given twice"):
        rank([run, tmp_path / "." / "run"], out=tmp_path / "out")


def test_out_must_be_a_folder(rank: Rank, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="out is a file"):
        rank([], out=tmp_path / "out")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"
