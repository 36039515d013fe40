# ruff: noqa: F401
"""`evaluate` module: how far a reward model's taste for an image outweighs what the prompt asks for."""

from __future__ import annotations

import datasets
import evaluate

# evaluate fetches only the files that are named here, one line each: kernels that kernels import are named too
from ._adherence_rows import DIMENSIONS
from ._arguments import columns_of, require_arguments, require_choice, stored_columns
from ._auroc import auroc
from ._bootstrap import resampling
from ._both_prompts import design_columns
from ._checks import number_column
from ._comparison import compare_reward_models
from ._design import prior_and_match
from ._dose_response import dose_response
from ._emotion import emotion_bias, generated_emotion
from ._image_to_image import image_to_image
from ._look import look_statistics
from ._look_shift import look_shift
from ._paired import effect_size
from ._place import leaderboard_place
from ._preference import aligned_preference
from ._ranks import pairwise_p
from ._real_images import real_image_gap
from ._reward_bias import reward_bias
from ._significance import holm
from ._slices import blocks

_CITATION = """\
@inproceedings{guo2026position,
  title     = {Position: Universal Aesthetic Alignment Narrows Artistic Expression},
  author    = {Guo and Qian and Hasan and Du},
  booktitle = {International Conference on Machine Learning},
  year      = {2026},
  note      = {arXiv 2512.11883}
}
"""
FORMS = {
    "default": (reward_bias, datasets.Value("float64")),
    "comparison": (compare_reward_models, datasets.Value("float64")),
    "dose_response": (dose_response, datasets.Value("float64")),
    "emotion": (emotion_bias, datasets.Value("float64")),
    "generated_emotion": (generated_emotion, datasets.Value("float64")),
    "image_to_image": (image_to_image, datasets.Value("float64")),
    "look": (look_shift, datasets.Image()),
    "place": (leaderboard_place, datasets.Value("float64")),
    "real_images": (real_image_gap, datasets.Value("float64")),
    "social_critique": (aligned_preference, datasets.Value("float64")),
}


class RewardBias(evaluate.Metric):
    """Each configuration is one kernel: its columns are features, all else is keywords of `compute`."""

    def _info(self):
        require_choice("reward_bias has no configuration", self.config_name, FORMS)
        kernel, kind = FORMS[self.config_name]
        return evaluate.MetricInfo(
            description=__doc__,
            citation=_CITATION,
            inputs_description=f"\n\n{kernel.__doc__}",
            features=datasets.Features({name: kind for name in columns_of(kernel)}),
            reference_urls=["https://arxiv.org/abs/2512.11883"],
        )

    @property
    def _compute(self):
        return FORMS[self.config_name][0]

    def compute(self, **inputs):
        """Compute the figures of this configuration."""
        require_arguments(self._compute, inputs, () if self.writer is None else self.features)
        return super().compute(**inputs)

    def add_batch(self, **columns):
        """Store the columns of some rows; `compute` does so with those that it is given."""
        super().add_batch(**stored_columns(columns, self.features))
