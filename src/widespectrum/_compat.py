"""What must run before a library is imported on some machines."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

__all__ = ["ensure_torchvision"]

# An operator is gone as soon as its library object is: this keeps it.
_OPERATORS: list[Any] = []


def ensure_torchvision() -> None:
    """Make `import torchvision` work where its wheel was built for CUDA and torch was not.

    Such a torchvision raises "operator torchvision::nms does not exist", and everything that looks whether torchvision
    is there (transformers, diffusers, evaluate, peft, timm, open_clip) fails with it: call this before the first import
    of any of them. Afterwards the transforms work; `torchvision.ops` and `torchvision.io` still do not. Nothing is done
    where torchvision imports properly or is not installed. Any other error of that import is raised as it comes.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _declare_operators()
        importlib.import_module("torchvision")


def _declare_operators() -> None:
    """Declare the two operators that torchvision registers kernels for while it is imported."""
    import torch

    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)
