# ruff: noqa: F401
"""`evaluate` module: how well a judge's verdicts agree with those of another judge or of people."""

from __future__ import annotations

import datasets
import evaluate

# evaluate fetches only the files that are named here, one line each: kernels that kernels import are named too
from ._agreement import judge_agreement
from ._arguments import columns_of, require_arguments, require_choice, stored_columns
from ._bootstrap import resampling
from ._checks import number_column
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


class JudgeAgreement(evaluate.Metric):
    """The verdicts of both sides are features; everything else is a keyword of `compute`."""

    def _info(self):
        require_choice("judge_agreement has no configuration", self.config_name, ("default",))
        return evaluate.MetricInfo(
            description=__doc__,
            citation=_CITATION,
            inputs_description=f"\n\n{judge_agreement.__doc__}",
            features=datasets.Features(dict.fromkeys(columns_of(self._compute), datasets.Value("float64"))),
            reference_urls=["https://arxiv.org/abs/2512.11883"],
        )

    @property
    def _compute(self):
        return judge_agreement

    def compute(self, **inputs):
        """Compute the figures."""
        require_arguments(self._compute, inputs, () if self.writer is None else self.features)
        return super().compute(**inputs)

    def add_batch(self, **columns):
        """Store the columns of some rows; `compute` does so with those that it is given."""
        super().add_batch(**stored_columns(columns, self.features))
