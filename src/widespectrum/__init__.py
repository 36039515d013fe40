"""Do image generators and reward models still do what a person asks for when it is not conventionally beautiful?

The names below are imported when they are first used, so that `import widespectrum` loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attach import attach_images
    from .errors import InputError, MissingExtraError, ModelError, RunFolderError, UnknownNameError, WideSpectrumError
    from .functional import anti_aesthetic_adherence, reward_bias
    from .generators import load_generator
    from .judges import load_judge
    from .prompts import PromptSet, load_prompt_set
    from .protocols import Generator, Judge, RewardModel
    from .published import metric_path
    from .rewards import load_reward_model
    from .types import ImageRecord, MetricResult, ModelSpec, Prompt, RunManifest, Score, Submission, Verdict

__version__ = "0.1.0"

__all__ = [
    "Generator",
    "ImageRecord",
    "InputError",
    "Judge",
    "MetricResult",
    "MissingExtraError",
    "ModelError",
    "ModelSpec",
    "Prompt",
    "PromptSet",
    "RewardModel",
    "RunFolderError",
    "RunManifest",
    "Score",
    "Submission",
    "UnknownNameError",
    "Verdict",
    "WideSpectrumError",
    "anti_aesthetic_adherence",
    "attach_images",
    "load_generator",
    "load_judge",
    "load_prompt_set",
    "load_reward_model",
    "metric_path",
    "reward_bias",
]

_MODULES = (
    "errors",
    "types",
    "published",
    "protocols",
    "functional",
    "attach",
    "prompts",
    "generators",
    "rewards",
    "judges",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"{__name__}.{module}")
            if name in found.__all__:
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
