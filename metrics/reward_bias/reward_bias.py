# ruff: noqa: F401
"""`evaluate` module: how far a reward model's taste for an image outweighs what the prompt asks for."""

from __future__ import annotations

import datasets
import evaluate

# evaluate fetches only the files that are named here, one line each: kernels that kernels import are named too
from ._auroc import auroc
from ._bootstrap import resampling
from ._checks import number_column
from ._reward_bias import reward_bias

_CITATION = """\
@inproceedings{guo2026position,
  title     = {Position: Universal Aesthetic Alignment Narrows Artistic Expression},
  author    = {Guo and Qian and Hasan and Du},
  booktitle = {International Conference on Machine Learning},
  year      = {2026},
  note      = {arXiv 2512.11883}
}
"""
_REWARDS = ("r_io_po", "r_io_pa", "r_ia_po", "r_ia_pa")


class RewardBias(evaluate.Metric):
    """The four rewards are features; verdicts, prompts, groups, seeds and options are keywords of `compute`."""

    def _info(self):
        if self.config_name not in (None, "default"):
            raise ValueError(f"reward_bias has no configuration {self.config_name!r}; load it without one")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=_CITATION,
            inputs_description=reward_bias.__doc__,
            features=datasets.Features({name: datasets.Value("float64") for name in _REWARDS}),
            reference_urls=["https://arxiv.org/abs/2512.11883"],
        )

    def _compute(
        self,
        r_io_po,
        r_io_pa,
        r_ia_po,
        r_ia_pa,
        *,
        verdict=None,
        prompt_id=None,
        group=None,
        image_seed=None,
        n_resamples=2000,
        seed=0,
        confidence_level=0.95,
    ):
        return reward_bias(
            r_io_po,
            r_io_pa,
            r_ia_po,
            r_ia_pa,
            verdict=verdict,
            prompt_id=prompt_id,
            group=group,
            image_seed=image_seed,
            n_resamples=n_resamples,
            seed=seed,
            confidence_level=confidence_level,
        )
