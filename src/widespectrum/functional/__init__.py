"""Formulas on arrays: NumPy and SciPy only, nothing else of the package.

The files beside this one are copied verbatim into the published metric folders (`python -m widespectrum.vendor`), so
they import nothing but one another, in lines of the form `from ._x import a, b`.
"""

from __future__ import annotations

from ._adherence import anti_aesthetic_adherence
from ._adherence_rows import DIMENSIONS
from ._agreement import judge_agreement
from ._auroc import auroc, delong_interval
from ._bootstrap import ClusterMeans, cluster_means, wilson_interval
from ._comparison import compare_reward_models
from ._design import prior_and_match
from ._dose_response import dose_response
from ._emotion import emotion_bias, generated_emotion
from ._image_to_image import image_to_image
from ._look import look_statistics
from ._look_shift import look_shift
from ._place import leaderboard_place
from ._power import (
    Agreement,
    Components,
    detectable_difference,
    prompts_needed,
    rank_agreement,
    variance_components,
)
from ._preference import aligned_preference
from ._ranks import Place, pairwise_p, rank_models
from ._real_images import real_image_gap
from ._reliability import krippendorff_alpha, spearman
from ._reward_bias import reward_bias
from ._roles import four_rewards
from ._significance import holm, mcnemar_exact, wilcoxon_signed_rank

__all__ = [
    "DIMENSIONS",
    "Agreement",
    "ClusterMeans",
    "Components",
    "Place",
    "aligned_preference",
    "anti_aesthetic_adherence",
    "auroc",
    "cluster_means",
    "compare_reward_models",
    "delong_interval",
    "detectable_difference",
    "dose_response",
    "emotion_bias",
    "four_rewards",
    "generated_emotion",
    "holm",
    "image_to_image",
    "judge_agreement",
    "krippendorff_alpha",
    "leaderboard_place",
    "look_shift",
    "look_statistics",
    "mcnemar_exact",
    "pairwise_p",
    "prior_and_match",
    "prompts_needed",
    "rank_agreement",
    "rank_models",
    "real_image_gap",
    "reward_bias",
    "spearman",
    "variance_components",
    "wilcoxon_signed_rank",
    "wilson_interval",
]
