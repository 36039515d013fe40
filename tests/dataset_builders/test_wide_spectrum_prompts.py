from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import datasets
import pyarrow.parquet as pq
import pytest

from widespectrum.errors import UnknownNameError
from widespectrum.prompts import load_prompt_set, read_prompts
from widespectrum.types import DIMENSIONS

SCRIPT = Path(__file__).resolve().parents[2] / "dataset_builders" / "wide_spectrum_prompts" / "build.py"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_wide_spectrum_prompts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "wide_spectrum_prompts"
    builder.build(out)
    return out


def test_parquet_holds_the_prompt_set(builder: ModuleType, built: Path) -> None:
    path = built / "photographs" / "test-00000-of-00001.parquet"
    assert pq.read_table(path).column_names == list(builder.FEATURES)
    assert read_prompts(path) == load_prompt_set("photographs").prompts


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_load_dataset_offline(
    builder: ModuleType, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for arguments in ((), ("photographs",)):
        loaded = datasets.load_dataset(str(built), *arguments, cache_dir=str(tmp_path))
        assert set(loaded) == {"test"}
        assert loaded["test"].features == builder.FEATURES
        assert loaded["test"].num_rows == 182


def test_card_is_filled_in(built: Path) -> None:
    card = (built / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "$" not in card
    assert "91 pairs (182 prompts) about 7 photographs" in card
    assert "| clarity | 7 | 3 | 3 | 13 |" in card
    assert all(f"| {dimension} | 7 |" in card for dimension in DIMENSIONS)
    assert "| detail refinement | pixelation | 5 |" in card


def test_unknown_config(builder: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="photographs"):
        builder.build(tmp_path, config="photograph")
