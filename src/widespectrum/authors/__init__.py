"""Datasets that the paper's authors keep on the Hub → run folders and tables that this package reads.

| name | what comes of it |
|---|---|
| `aas_benchmark_final` | a run folder with prompts, images, scores and verdicts: `widespectrum evaluate` runs on it |
| `anti_aesthetics_dataset` | a table of prompt pairs, which a run file may name under [prompts] |
| `aas_real_images` | a table for the form `real_images` of the metric `reward_bias` |
| `lapis` | a table for its form `place` |
| `critical_comparsion` (their spelling) | a table for its form `social_critique` |

The datasets carry no license: what is made from them stays with whoever imports it and is not published. Columns are
checked by name and type before a row is read; where the authors do not document them, the module says what is assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from widespectrum.errors import InputError
from widespectrum.registry import unknown_name

from .benchmark import import_benchmark
from .material import import_critical, import_paintings, import_real_images
from .prompt_pairs import import_prompt_pairs

__all__ = ["AUTHORS_DATASETS", "AuthorsDataset", "default_place", "import_dataset"]

Importer = Callable[[Path, Path], list[str]]


class AuthorsDataset(NamedTuple):
    """One line of the table: `makes` is `run` (a folder) or `table` (a Parquet file)."""

    hub_id: str
    makes: str
    load: Importer


AUTHORS_DATASETS: dict[str, AuthorsDataset] = {
    "aas_benchmark_final": AuthorsDataset("weathon/aas_benchmark_final", "run", import_benchmark),
    "aas_real_images": AuthorsDataset("weathon/aas_real_images", "table", import_real_images),
    "anti_aesthetics_dataset": AuthorsDataset("weathon/anti_aesthetics_dataset", "table", import_prompt_pairs),
    "critical_comparsion": AuthorsDataset("weathon/critical_comparsion", "table", import_critical),
    "lapis": AuthorsDataset("weathon/lapis", "table", import_paintings),
}


def default_place(name: str) -> Path:
    """Where an import goes when nothing else is said."""
    return Path("runs") / name if _known(name).makes == "run" else Path("tables") / f"{name}.parquet"


def import_dataset(name: str, source: str | None, out: Path, revision: str | None = None) -> list[str]:
    """Read the dataset `name` from the folder or Parquet file `source` into `out`; what is worth a notice.

    Without `source`, or with its Hub id, it is downloaded at `revision`. InputError for another name, another Hub id,
    unexpected columns and rows that break a rule.
    """
    entry = _known(name)
    if entry.makes == "table" and out.suffix != ".parquet":
        raise InputError(f"{out} must end in .parquet: {name} becomes one table; change --out")
    return entry.load(_folder(name, source, revision), out)


def _known(name: str) -> AuthorsDataset:
    if name not in AUTHORS_DATASETS:
        raise unknown_name("dataset of the authors", name, AUTHORS_DATASETS, "widespectrum import-dataset --help")
    return AUTHORS_DATASETS[name]


def _folder(name: str, source: str | None, revision: str | None) -> Path:
    """The folder (or file) with the Parquet files, downloaded where it is not on this disk."""
    hub_id = AUTHORS_DATASETS[name].hub_id
    if source is not None and source != hub_id:
        if revision is not None:
            raise InputError(
                f"--revision names a version on the Hub, but {source} is read from this disk: leave it out"
            )
        path = Path(source)
        if not path.exists():
            raise InputError(
                f"{source}: there is no such folder; expected one with the Parquet files of {hub_id}, or {hub_id} "
                "itself to download it"
            )
        return path
    from widespectrum.hub import download_snapshot

    return Path(download_snapshot(hub_id, "dataset", revision))
