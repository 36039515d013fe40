"""The ranking of runs that the package itself made and evaluated: what shares a set, and what does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from widespectrum import run_models, runs, stages, store
from widespectrum.config import parse_run_file
from widespectrum.results import evaluate, read_evaluation

EVALUATE = "\n[evaluate]\nn_resamples = 50\n"
SECOND_JUDGE = '\n[[judges]]\nname = "rule"\nreward_model = "colorfulness"\n'


def finish(folder: Path, text: str) -> Path:
    """Do what is left of a run under another run file, and evaluate it."""
    config = parse_run_file(text)
    (folder / "run.toml").write_text(text, encoding="utf-8")
    models, prompt_set = run_models.load_models(config), stages.prompt_set_of(config)
    run_models.register(folder, models)
    failures = stages.generate(folder, config, models, prompt_set, print)
    failures += stages.score(folder, config, models, print)
    failures += stages.judge(folder, config, models, print)
    assert not failures
    evaluate(folder, config)
    runs.finish(folder)
    return folder


def keep_half_of_the_scores(folder: Path, model: str) -> None:
    """As if the reward model had scored every other image pair only."""
    scores = store.read(folder, "scores")
    pairs = sorted(set(scores["pair_id"].to_pylist()))
    is_half = pc.is_in(scores["pair_id"], pa.array(pairs[::2]))
    for part in store.parts(folder, "scores"):
        part.unlink()
    store.append(folder, "scores", scores.filter(pc.or_(pc.not_equal(scores["reward_model"], model), is_half)))


def sets(table: pa.Table, board: str) -> dict[str, list[str]]:
    """The models of each comparison, by their headline rows."""
    found: dict[str, list[str]] = {}
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        if row["tier"] == "run" and row["board"] == board and row["headline"]:
            found.setdefault(row["comparison"], []).append(row["model"])
    return found


@pytest.fixture(scope="module")
def whole(tiny_run: Path, run_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, evaluated with the pixel judge."""
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("ranked") / "whole")
    return finish(folder, run_text + SECOND_JUDGE + EVALUATE)


def test_one_run_is_one_set_per_board(rank: Callable[..., pa.Table], whole: Path, tmp_path: Path) -> None:
    table = rank([whole], out=tmp_path)
    (generators,) = sets(table, "generators").items()
    (reward_models,) = sets(table, "reward_models").items()
    assert sorted(generators[1]) == sorted(runs.read_manifest(whole).specs["generators"])
    assert sorted(reward_models[1]) == ["colorfulness", "oracle", "random"]
    assert "verdicts of pixel:pixel@v1" in generators[0]
    assert "seeds 0;" in generators[0]
    page = (tmp_path / "ranking.md").read_text(encoding="utf-8")
    assert "coverage/verdict" in page


def test_another_verdict_judge_is_another_set(
    rank: Callable[..., pa.Table], whole: Path, run_text: str, tmp_path: Path
) -> None:
    """Both runs hold both judges: what counts is whose verdicts were used."""
    text = run_text + SECOND_JUDGE + EVALUATE + 'verdict_judge = "rule[reward_model=colorfulness]"\n'
    config = parse_run_file(text)
    other = shutil.copytree(whole, tmp_path / "other")
    (other / "run.toml").write_text(text, encoding="utf-8")
    evaluate(other, config)
    assert runs.read_manifest(other).specs == runs.read_manifest(whole).specs
    table = rank([whole, other], out=tmp_path / "out")
    for board in ("generators", "reward_models"):
        assert len(sets(table, board)) == 2
        assert all(len({name.split("(")[-1] for name in names}) == 1 for names in sets(table, board).values())


def test_more_seeds_are_another_set(rank: Callable[..., pa.Table], whole: Path, run_text: str, tmp_path: Path) -> None:
    text = "[run]\nseeds = [0, 1]\n" + run_text + SECOND_JUDGE + EVALUATE
    other = finish(shutil.copytree(whole, tmp_path / "other"), text)
    assert read_evaluation(other).seeds == [0, 1]
    table = rank([whole, other], out=tmp_path / "out")
    assert len(sets(table, "generators")) == 2
    assert len(sets(table, "reward_models")) == 2


def test_a_reward_model_with_half_of_the_scores_stands_alone(
    rank: Callable[..., pa.Table], whole: Path, run_text: str, tmp_path: Path
) -> None:
    other = shutil.copytree(whole, tmp_path / "other")
    keep_half_of_the_scores(other, "random")
    evaluate(other, parse_run_file(run_text + SECOND_JUDGE + EVALUATE))
    table = rank([whole, other], out=tmp_path / "out")
    alone, together = sorted(sets(table, "reward_models").values(), key=len)
    assert alone == ["random (other)"]
    assert len(together) == 5
    assert len(sets(table, "generators")) == 1
