"""`widespectrum demo` as a user runs it, and what its figures must say."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from widespectrum import store
from widespectrum.results import read_results
from widespectrum.runs import read_manifest

BLIND = ("colorfulness", "sharpness", "exposure")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "widespectrum", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def values(demo):
    return read_results(demo[0]).set_index(["model", "metric", "subset"])


def test_it_prints_the_tables_and_where_the_pages_are(demo):
    out, printed = demo
    assert "Reward models" in printed
    assert "Generators" in printed
    assert f"report:  {out / 'report.html'}" in printed
    assert f"ranking: {out / 'ranking' / 'ranking.md'}" in printed
    assert "generate: 910 images, 0 API calls" in printed
    assert "merely illustrate" in printed


@pytest.mark.parametrize("model", BLIND)
def test_a_blind_model_does_not_read_the_prompt(values, model):
    for subset in ("all", "controlled", "verified"):
        assert values.loc[(model, "prompt_match", subset), "value"] == 0.0
        assert values.loc[(model, "both_ways_accuracy", subset), "value"] == 0.0
        assert (model, "prior_over_match", subset) not in values.index


def test_the_oracle_is_always_right(values):
    for subset in ("all", "controlled", "verified"):
        assert values.loc[("oracle", "image_prior", subset), "value"] == 0.0
        assert values.loc[("oracle", "prompt_match", subset), "value"] == 1.0
        assert values.loc[("oracle", "both_ways_accuracy", subset), "value"] == 1.0


def test_the_random_model_is_right_both_ways_a_quarter_of_the_time(values):
    row = values.loc[("random", "both_ways_accuracy", "controlled")]
    assert row.ci_low <= 0.25 <= row.ci_high
    match = values.loc[("random", "prompt_match", "controlled")]
    assert match.ci_low <= 0 <= match.ci_high


def slope(values, model, name):
    return values.loc[(model, f"dose_slope_{name}", "controlled")]


def test_slopes_over_effect_strength(values):
    assert slope(values, "oracle", "requested").ci_low > 0 > slope(values, "oracle", "unrequested").ci_high
    for model in BLIND:
        assert slope(values, model, "requested").value == slope(values, model, "unrequested").value
        assert slope(values, model, "difference").value == 0
    for name in ("requested", "unrequested", "difference"):
        row = slope(values, "random", name)
        assert row.ci_low < 0 < row.ci_high
    dimensions = values.loc[("oracle", "dose_slope_difference", slice(None)), "value"]
    assert len(dimensions) == 1 + 6
    assert dimensions.to_numpy() == pytest.approx(0.4)


def test_generators(values):
    assert values.loc[("identity", "success_rate", "all"), "value"] == 0.0
    assert values.loc[("identity", "delta_j_selected", "all"), "value"] == 0.0
    drops = [values.loc[(f"photo-effects[strength={k}]", "delta_j_selected", "all"), "value"] for k in (1, 2, 3, 4)]
    assert 0 > drops[0] > drops[1] > drops[2] > drops[3]
    for strength in (1, 2, 3, 4):
        assert values.loc[(f"photo-effects[strength={strength}]", "refusal_rate", "all"), "value"] == 35 / 91
    assert (values.loc[(slice(None), "failure_rate", "all"), "value"] == 0).all()


def test_refusals_carry_their_reason_and_no_picture(demo):
    images = store.read(demo[0], "images").to_pandas()
    refused = images[images["status"] == "refused"]
    assert len(refused) == 4 * 35
    assert (refused["image_id"] == "").all()
    assert refused["image"].isna().all()
    assert refused["detail"].str.contains("background|detail realism|emotion|main object|object pairing").all()


def test_everything_is_written_down(demo):
    out, _ = demo
    manifest = read_manifest(out)
    assert manifest.status == "complete"
    assert set(manifest.specs["reward_models"]) == {*BLIND, "random", "oracle"}
    assert (out / "run.toml").read_text().startswith("# The embedded default")
    assert (out / "report.html").stat().st_size > 100_000
    assert pq.read_table(out / "ranking" / "ranking.parquet").num_rows > 0
    assert "Published, not recomputed" in (out / "ranking" / "ranking.md").read_text()
