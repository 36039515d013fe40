# ruff: noqa: F401
"""`evaluate` module: whether a generator leaves the mainstream look when asked to, with the content still there."""

from __future__ import annotations

import datasets
import evaluate

# evaluate fetches only the files that are named here, one line each: kernels that kernels import are named too
from ._adherence import anti_aesthetic_adherence
from ._adherence_rows import DIMENSIONS
from ._arguments import columns_of, require_arguments, require_choice, stored_columns
from ._auroc import auroc
from ._bootstrap import resampling
from ._checks import number_column
from ._paired import effect_size
from ._polish import escape
from ._significance import holm

_CITATION = """\
@inproceedings{guo2026position,
  title     = {Position: Universal Aesthetic Alignment Narrows Artistic Expression},
  author    = {Guo and Qian and Hasan and Du},
  booktitle = {International Conference on Machine Learning},
  year      = {2026},
  note      = {arXiv 2512.11883}
}
"""


class AntiAestheticAdherence(evaluate.Metric):
    """The two rewards are features; everything else is a keyword of `compute`."""

    def _info(self):
        require_choice("anti_aesthetic_adherence has no configuration", self.config_name, ("default",))
        return evaluate.MetricInfo(
            description=__doc__,
            citation=_CITATION,
            inputs_description=f"\n\n{anti_aesthetic_adherence.__doc__}",
            features=datasets.Features(dict.fromkeys(columns_of(self._compute), datasets.Value("float64"))),
            reference_urls=["https://arxiv.org/abs/2512.11883"],
        )

    @property
    def _compute(self):
        return anti_aesthetic_adherence

    def compute(self, **inputs):
        """Compute the figures."""
        require_arguments(self._compute, inputs, () if self.writer is None else self.features)
        return super().compute(**inputs)

    def add_batch(self, **columns):
        """Store the columns of some rows; `compute` does so with those that it is given."""
        super().add_batch(**stored_columns(columns, self.features))
