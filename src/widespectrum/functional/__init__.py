"""Formulas on arrays: NumPy and SciPy only, nothing else of the package.

The files beside this one are copied verbatim into the published metric folders (`python -m widespectrum.vendor`), so
they import nothing but one another, in lines of the form `from ._x import a, b`.
"""

from __future__ import annotations

from ._adherence import anti_aesthetic_adherence
from ._adherence_rows import DIMENSIONS
from ._auroc import auroc, delong_interval
from ._bootstrap import ClusterMeans, cluster_means, wilson_interval
from ._reward_bias import prior_and_match, reward_bias
from ._significance import holm, mcnemar_exact, wilcoxon_signed_rank

__all__ = [
    "DIMENSIONS",
    "ClusterMeans",
    "anti_aesthetic_adherence",
    "auroc",
    "cluster_means",
    "delong_interval",
    "holm",
    "mcnemar_exact",
    "prior_and_match",
    "reward_bias",
    "wilcoxon_signed_rank",
    "wilson_interval",
]
