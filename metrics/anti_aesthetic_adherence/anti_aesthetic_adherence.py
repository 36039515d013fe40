# ruff: noqa: F401
"""`evaluate` module: whether a generator leaves the mainstream look when asked to, with the content still there."""

from __future__ import annotations

import datasets
import evaluate

# evaluate fetches only the files that are named here, one line each: kernels that kernels import are named too
from ._adherence import anti_aesthetic_adherence
from ._adherence_rows import DIMENSIONS
from ._auroc import auroc
from ._bootstrap import resampling
from ._checks import number_column
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
        if self.config_name not in (None, "default"):
            raise ValueError(f"anti_aesthetic_adherence has no configuration {self.config_name!r}; load it without one")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=_CITATION,
            inputs_description=anti_aesthetic_adherence.__doc__,
            features=datasets.Features({name: datasets.Value("float64") for name in ("r_io_po", "r_ia_po")}),
            reference_urls=["https://arxiv.org/abs/2512.11883"],
        )

    def _compute(
        self,
        r_io_po,
        r_ia_po,
        *,
        verdict=None,
        effect_io=None,
        effect_ia=None,
        content_io=None,
        content_ia=None,
        j_io=None,
        j_ia=None,
        dimensions=None,
        status=None,
        prompt_id=None,
        image_seed=None,
        r_io_po_base=None,
        r_ia_po_base=None,
        verdict_base=None,
        effect_io_base=None,
        effect_ia_base=None,
        content_io_base=None,
        content_ia_base=None,
        j_io_base=None,
        j_ia_base=None,
        status_base=None,
        n_resamples=2000,
        seed=0,
        confidence_level=0.95,
    ):
        return anti_aesthetic_adherence(
            r_io_po,
            r_ia_po,
            verdict=verdict,
            effect_io=effect_io,
            effect_ia=effect_ia,
            content_io=content_io,
            content_ia=content_ia,
            j_io=j_io,
            j_ia=j_ia,
            dimensions=dimensions,
            status=status,
            prompt_id=prompt_id,
            image_seed=image_seed,
            r_io_po_base=r_io_po_base,
            r_ia_po_base=r_ia_po_base,
            verdict_base=verdict_base,
            effect_io_base=effect_io_base,
            effect_ia_base=effect_ia_base,
            content_io_base=content_io_base,
            content_ia_base=content_ia_base,
            j_io_base=j_io_base,
            j_ia_base=j_ia_base,
            status_base=status_base,
            n_resamples=n_resamples,
            seed=seed,
            confidence_level=confidence_level,
        )
