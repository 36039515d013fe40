"""What a dataset on the Hub is made of: Parquet files by config and split, their provenance, the card, the checks."""

from __future__ import annotations

from .balance import chi_square_table, count_table, markdown_table
from .card import save_card
from .configs import configs_of, load_split, save_config, table_on_disk
from .features import features
from .provenance import Provenance, Source, file_source, read_provenance, write_provenance

__all__ = [
    "Provenance",
    "Source",
    "chi_square_table",
    "configs_of",
    "count_table",
    "features",
    "file_source",
    "load_split",
    "markdown_table",
    "read_provenance",
    "save_card",
    "save_config",
    "table_on_disk",
    "write_provenance",
]
