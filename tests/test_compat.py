"""What `ensure_torchvision` does where there is no torchvision, and with stand-ins for good and bad ones.

The real torchvision is met in the second environment: tests/openclip.
"""

import subprocess
import sys
from importlib.util import find_spec

import pytest

CALL = """
import sys
from widespectrum._compat import ensure_torchvision
ensure_torchvision()
ensure_torchvision()
"""

# Says what torchvision says when its operators were not registered.
WRONG_BUILD = """
import torch

for operator in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{operator}")(lambda *_: None)
works = True
"""


def fresh(code, folder):
    """What a process prints that finds `folder` before everything else."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.strip(), done.stderr


def stand_in(folder, code):
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(code, encoding="utf-8")


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_nothing_is_done_without_torchvision(tmp_path):
    printed, error = fresh(f"{CALL}print('torch' in sys.modules)", tmp_path)
    assert (printed, error) == ("False", "")


def test_a_torchvision_that_works_is_left_alone(tmp_path):
    stand_in(tmp_path, "works = True")
    printed, error = fresh(f"{CALL}import torchvision; print(torchvision.works, 'torch' in sys.modules)", tmp_path)
    assert (printed, error) == ("True False", "")


def test_a_wrong_build_is_made_to_work(tmp_path):
    stand_in(tmp_path, WRONG_BUILD)
    assert "operator torchvision::nms does not exist" in fresh("import torchvision", tmp_path)[1]
    printed, error = fresh(f"{CALL}import torchvision; print(torchvision.works)", tmp_path)
    assert (printed, error) == ("True", "")


def test_another_error_is_raised_as_it_comes(tmp_path):
    stand_in(tmp_path, "raise RuntimeError('no such device')")
    assert fresh(CALL, tmp_path)[1].endswith("RuntimeError: no such device\n")
