"""The verb `publish`: one sentence and the right exit code for whatever is wrong, and nothing sent."""

import shutil
import time

import pytest
from huggingface_hub import HfApi, constants
from typer.testing import CliRunner

from widespectrum import __version__
from widespectrum.cli import app
from widespectrum.published import published_path

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

METRIC = "judge_agreement"


@pytest.fixture
def metric(tmp_path):
    """A copy of a metric's folder to change."""
    return shutil.copytree(published_path("metrics", METRIC), tmp_path / METRIC)


def publish(*arguments):
    return CliRunner().invoke(app, ["publish", *map(str, arguments)])


def refused(hub, result, code=2):
    """The one line that is printed."""
    assert result.exit_code == code, result.output
    assert not [entry for entry in hub.log if entry.method not in ("GET", "HEAD")]
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_metric_is_published_in_a_dry_run_and_in_earnest(here, hub, metric):
    where = ("--repo", f"acme/{METRIC}", "--from", metric)
    result = publish(METRIC, *where, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert f"space {hub.url}/spaces/acme/{METRIC} v{__version__} (public, new)" in result.stdout
    assert f"  {METRIC}.py\n" in result.stdout
    assert result.stdout.endswith("dry run: nothing was sent\n")
    assert not hub.has("spaces", f"acme/{METRIC}")
    result = publish(METRIC, *where, "--version", "2.0.0", "--message", "Two", "--private")
    repo = hub.repo("spaces", f"acme/{METRIC}")
    assert (repo.tags.keys(), repo.at("main").title, repo.private) == ({"v2.0.0"}, "Two", True)
    assert result.stdout.endswith(
        f"published: {hub.url}/spaces/acme/{METRIC}/tree/v2.0.0 (commit {repo.at('main').oid})\n"
    )
    (metric / "tests.py").write_text("test_cases = []\n")
    result = publish(METRIC, *where, "--version", "2.1.0", "--pr")
    assert f"proposed: {hub.url}/spaces/acme/{METRIC}/discussions/1; once it is merged" in result.stdout
    here.merge_pull_request(f"acme/{METRIC}", discussion_num=1, repo_type="space")
    result = publish(METRIC, *where, "--version", "2.1.0", "--pr")
    assert result.stdout.endswith(f"nothing to propose: {hub.url}/spaces/acme/{METRIC} holds the same already\n")


def test_names_and_folders_that_are_not_there(here, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(hub, publish("judge_agreemnt", "--repo", "acme/x"))
    assert line.startswith("error: nothing called 'judge_agreemnt' is published: expected one of ")
    assert {"wide_spectrum_prompts,", "judge_agreement,", "leaderboard"} < set(line.split())
    line = refused(hub, publish("wide_spectrum_prompts", "--repo", "acme/x"))
    assert line == (
        "error: --from: build/wide_spectrum_prompts holds no README.md to publish: build it first "
        "(widespectrum build wide_spectrum_prompts --out build/wide_spectrum_prompts)"
    )
    line = refused(hub, publish("leaderboard", "--repo", "acme/x", "--from", tmp_path))
    assert line == f"error: --from: {tmp_path} holds no README.md to publish"
    line = refused(hub, publish("wide_spectrum_prompts", "--repo", "acme/x", "--from", tmp_path / "no"))
    assert line == f"error: --from: expected a folder to publish, and there is none at {tmp_path}/no"


def test_a_metric_that_could_not_be_loaded_is_refused(here, hub, metric):
    line = refused(hub, publish(METRIC, "--repo", "acme/judge-agreement", "--from", metric))
    assert line.endswith("to be called like its script: expected acme/judge_agreement, got 'acme/judge-agreement'")
    (metric / "_bootstrap.py").write_text("old")
    line = refused(hub, publish(METRIC, "--repo", f"acme/{METRIC}", "--from", metric))
    assert line == (
        f"error: {METRIC}/_bootstrap.py differs from functional/_bootstrap.py: run `python -m widespectrum.vendor`"
    )
    (metric / f"{METRIC}.py").unlink()
    line = refused(hub, publish(METRIC, "--repo", f"acme/{METRIC}", "--from", metric))
    assert line == f"error: --from: {metric} holds no {METRIC}.py, the script of the metric"


def test_what_the_check_finds_is_printed_all_at_once(here, hub, metric):
    (metric / "requirements.txt").unlink()
    (metric / "app.py").unlink()
    result = publish(METRIC, "--repo", f"acme/{METRIC}", "--from", metric)
    assert (result.exit_code, hub.log) == (2, [])
    *found, last = result.stderr.splitlines()
    assert sorted(line.partition(":")[0] for line in found) == ["app.py", "requirements.txt"]
    assert last == f"error: {metric} has 2 problems, so nothing was sent"


@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ({"HF_TOKEN": None}, 2, "no token for the Hub: run `hf auth login`, or set HF_TOKEN"),
        ({"HF_TOKEN": "hf_wrong"}, 2, "the Hub does not know the token (401: Invalid credentials in"),
        ({"HF_HUB_OFFLINE": True}, 2, "HF_HUB_OFFLINE is set, so nothing may reach the Hub: unset it"),
        ({"ENDPOINT": "http://127.0.0.1:9"}, 1, "the connection failed (ConnectError): check the network; the same"),
    ],
)
def test_no_way_to_the_hub(here, hub, monkeypatch, setting, code, message):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for name, value in setting.items():
        if name != "HF_TOKEN":
            monkeypatch.setattr(constants, name, value)
        elif value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    result = publish(METRIC, "--repo", f"acme/{METRIC}")
    assert message in refused(hub, result, code)
    assert ("Trying again" in result.stdout) is (code == 1)
    assert "hf_" not in result.output


def test_a_hub_that_is_down_is_no_mistake_of_the_user(here, hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.fail("GET", "/api/spaces/", 503, 9)
    result = publish(METRIC, "--repo", f"acme/{METRIC}")
    assert "the Hub has a fault of its own (503): the same command goes on" in refused(hub, result, 1)


def test_ctrl_c_says_how_to_go_on(here, hub, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", stop)
    result = publish(METRIC, "--repo", f"acme/{METRIC}")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Stopped. Whole commits are kept; the same command goes on."
