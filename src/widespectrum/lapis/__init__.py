"""LAPIS, paintings rated by people: from one row per rating to one row per painting, and to a balanced subset.

The ratings are given out by the authors of LAPIS on request. Only aggregates leave this module: a rater appears in no
row, no mean rests on fewer raters than a minimum, and a mean that is left out does not follow from the others of its
trait. That is no proof of anonymity: means of two traits together, or a mean at an end of the scale, can tell more.
"""

from __future__ import annotations

from .annotations import Annotations, Painting, read_annotations
from .attaching import image_files, image_folder
from .captions import caption_paintings
from .means import COLUMNS, TRAITS, painting_rows
from .splits import read_image_splits, read_user_folds
from .subset import allocate, stratified_subset

__all__ = [
    "COLUMNS",
    "TRAITS",
    "Annotations",
    "Painting",
    "allocate",
    "caption_paintings",
    "image_files",
    "image_folder",
    "painting_rows",
    "read_annotations",
    "read_image_splits",
    "read_user_folds",
    "stratified_subset",
]
