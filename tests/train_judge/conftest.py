"""A data set and a small Qwen3-VL that several tests read, and a cache of `datasets` that is thrown away."""

import os

import datasets
import pytest
import torch

from tests.judges import made_qwen3vl
from tests.train_judge import made_annotations


# Per file, so that the tests of other folders have what they expect.
@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("datasets")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        # One thread here and in processes of their own: sums over several are not the same to the last bit.
        for name, value in {"HF_DATASETS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}.items():
            patch.setitem(os.environ, name, value)
        datasets.disable_progress_bars()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)
        datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return made_annotations.save(tmp_path_factory.mktemp("data") / "annotated", made_annotations.rows(45))


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return made_qwen3vl.checkpoint(tmp_path_factory.mktemp("base") / "tiny-qwen3-vl")
