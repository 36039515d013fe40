"""What is not loaded until it is needed."""

import json
import subprocess
import sys

import pytest

HEAVY = ("datasets", "diffusers", "evaluate", "gradio", "matplotlib", "numpy", "open_clip", "pandas", "PIL", "pyarrow")
HEAVY += ("scipy", "skimage", "sklearn", "torch", "torchvision", "transformers")


def loaded_by(code):
    """The heavy packages that a fresh process has loaded after `code`, and what it printed."""
    report = f"import json, sys; print(); print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(printed)


CALL = """
import sys
from widespectrum.cli import app
try:
    app({arguments})
except SystemExit as end:
    assert not end.code, end.code
"""


def test_the_package_loads_nothing_heavy():
    assert loaded_by("import widespectrum; print(widespectrum.__version__)")[0] == []


def test_its_records_and_errors_load_nothing_heavy():
    assert loaded_by("from widespectrum import ModelSpec, Prompt, WideSpectrumError, metric_path")[0] == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["demo", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    loaded, printed = loaded_by(CALL.format(arguments=arguments))
    assert printed.strip()
    assert loaded == []


def test_this_test_would_notice():
    assert loaded_by("import widespectrum.store")[0] == ["numpy", "pyarrow"]
