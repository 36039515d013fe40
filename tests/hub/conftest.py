"""A Hub on the loopback device, this process made to talk to it, and others that know nothing but its address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

# server.py is made of the modules beside it
sys.path.append(str(Path(__file__).parent))

from server import Hub

TOKEN = "hf_writer"
READ_AT_IMPORT = ("HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN", "PYTEST_CURRENT_TEST")


@pytest.fixture(scope="session")
def running_hub():
    with Hub() as running:
        yield running


@pytest.fixture
def hub(running_hub):
    """An empty Hub."""
    running_hub.reset()
    return running_hub


@pytest.fixture
def here(hub, tmp_path, monkeypatch):
    """Point huggingface_hub, which this process has imported as offline, to the loopback Hub."""
    for name, value in (
        ("ENDPOINT", hub.url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_XET", True),
        ("HF_HUB_DISABLE_TELEMETRY", True),
        ("HF_HOME", str(tmp_path / "home")),
        ("HF_HUB_CACHE", str(tmp_path / "home" / "hub")),
        ("HF_TOKEN_PATH", str(tmp_path / "home" / "token")),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture
def start(hub, tmp_path):
    """`start(*arguments, **environment)` starts a fresh Python in an empty folder; None removes a variable."""
    work = tmp_path / "work"
    work.mkdir()
    started = []

    def start(*arguments, **environment):
        known = {key: value for key, value in os.environ.items() if key not in READ_AT_IMPORT}
        known |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
        known |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        known = {key: value for key, value in {**known, **environment}.items() if value is not None}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=work, env=known, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """`run(*arguments, **environment)`: what a fresh Python prints, and how it ends."""

    def run(*arguments, **environment):
        process = start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run
