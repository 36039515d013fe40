"""The outcomes behind the headline figures: their means are what `evaluate` gives."""

from __future__ import annotations

import json

import pytest

from widespectrum import importers, store
from widespectrum.config import parse_run_file, read_run_file
from widespectrum.outcomes import headline_outcomes
from widespectrum.results import evaluate
from widespectrum.types import ImageRecord

HEADLINES = {"success_rate": ["all"], "both_ways_accuracy": ["all", "verified", "controlled"]}


def figures(run, config):
    """(value, pairs) of every headline figure, as evaluated."""
    results = evaluate(run, config)
    return {(r.model, r.metric, r.subset): (r.value, r.n) for r in results if r.subset in HEADLINES.get(r.metric, [])}


def means(outcomes):
    found = {}
    for name, rows in outcomes.groupby(["model", "metric", "subset"]):
        assert rows["key"].is_unique
        assert set(rows["value"]) <= {0.0, 1.0}
        pairs = {json.loads(key)[0].partition(" by ")[0] for key in rows["key"]}
        found[name] = (pytest.approx(rows["value"].mean(), abs=1e-12), len(pairs))
    return found


def test_their_means_are_the_headline_figures(run_copy, run_text):
    config = parse_run_file(run_text + "\n[evaluate]\nn_resamples = 5\n")
    outcomes = headline_outcomes(run_copy, config)
    assert list(outcomes) == ["model", "metric", "subset", "cluster", "key", "value"]
    assert outcomes.notna().all(axis=None)
    found = means(outcomes)
    assert found == figures(run_copy, config)
    assert len({value.expected for value, _ in found.values()}) > 2
    # two photographs, each asked for with many effects
    assert outcomes["cluster"].nunique() == 2
    # the same request or pair has the same key, whichever model it is of
    for _, rows in outcomes[outcomes["subset"] == "all"].groupby("metric"):
        sets = [frozenset(keys) for _, keys in rows.groupby("model")["key"]]
        assert set.intersection(*map(set, sets))


def test_refused_requests_lose_and_failed_ones_have_no_outcome(run_copy, run_text):
    config = parse_run_file(run_text + "\n[evaluate]\nn_resamples = 5\n")

    def successes():
        outcomes = headline_outcomes(run_copy, config)
        assert means(outcomes) == figures(run_copy, config)
        rows = outcomes[(outcomes["metric"] == "success_rate") & outcomes["model"].str.startswith("photo-effects")]
        return dict(zip(rows["key"], rows["value"], strict=True))

    before = successes()
    failed, refused = [key for key, value in before.items() if value == 1][:2]
    pair_ids = {key: json.loads(key)[0].partition(" by ")[0] for key in (failed, refused)}
    prompts = store.read(run_copy, "prompts").to_pylist()
    of_pair = {prompt["pair_id"]: prompt["prompt_id"] for prompt in prompts if prompt["role"] == "wide_spectrum"}
    images = store.read(run_copy, "images")
    rows = images.drop_columns("image").to_pylist()
    for part in store.parts(run_copy, "images"):
        part.unlink()
    gone = [of_pair[pair_id] for pair_id in pair_ids.values()]
    kept = [row["prompt_id"] not in gone or not row["generator"].startswith("photo-effects") for row in rows]
    store.append(run_copy, "images", images.filter(kept))
    refusal = next(row for row, is_kept in zip(rows, kept, strict=True) if row["prompt_id"] == gone[1] and not is_kept)
    nothing = {"image_id": "", "status": "refused", "detail": "no", "width": 0, "height": 0, "path": ""}
    store.append(run_copy, "images", [ImageRecord(**{**refusal, **nothing})], [None])
    after = successes()
    assert after == {key: value for key, value in before.items() if key != failed} | {refused: 0.0}


def test_equal_scores_are_no_right_decision_and_imported_scores_have_no_success(tmp_path):
    cells = [
        f"{prefix}_{cell}" for prefix in ("hpsv3", "hpsv2", "image_reward") for cell in ("oiop", "oidp", "diop", "didp")
    ]
    rows = {
        0: ["1,0,0,1"] * 3,
        1: ["1,0,0,1", "1,1,0,1", "1,0,1,1"],  # a tie under one of the prompts
        2: ["0,0,0,0", "0,1,1,0", "0.2,0.1,0.1,0.2"],
    }
    lines = [f"sdxl,{index},{','.join(values)}" for index, values in rows.items()]
    (tmp_path / "scores.csv").write_text("\n".join([f"model_tag,prompt_index,{','.join(cells)}", *lines]) + "\n")
    importers.import_scores(tmp_path / "scores.csv", tmp_path / "run")
    config = read_run_file(tmp_path / "run")
    outcomes = headline_outcomes(tmp_path / "run", config)
    assert set(outcomes["metric"]) == {"both_ways_accuracy"}
    assert outcomes.groupby("model")["value"].apply(list).to_dict() == {
        "hpsv2.1": [1, 0, 0],
        "hpsv3": [1, 1, 0],
        "imagereward": [1, 0, 1],
    }
    assert means(outcomes) == figures(tmp_path / "run", config)
