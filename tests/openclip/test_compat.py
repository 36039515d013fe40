"""The torchvision of PyPI is built for CUDA; next to a torch for CPUs it cannot be imported without help."""

import subprocess
import sys

import pytest

HELP = "from widespectrum._compat import ensure_torchvision; ensure_torchvision(); ensure_torchvision()"
RESIZE = """
from PIL import Image
from torchvision.transforms import functional
assert functional.resize(Image.new("RGB", (20, 10)), 5).size == (10, 5)
"""


def fresh(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "code",
    [
        RESIZE,
        "import timm, open_clip",
        "from transformers import AutoImageProcessor, CLIPModel, Qwen2VLProcessor",
    ],
)
def test_what_looks_for_torchvision_can_be_imported(code):
    done = fresh(f"{HELP}\n{code}")
    assert done.returncode == 0, done.stderr


def test_nothing_changes_where_torchvision_can_be_imported():
    alone = fresh("import torchvision")
    helped = fresh(f"{HELP}; from widespectrum import _compat; print(len(_compat._OPERATORS))")
    assert helped.stdout.strip() == ("0" if alone.returncode == 0 else "1"), helped.stderr
    if alone.returncode:
        assert "operator torchvision::nms does not exist" in alone.stderr
