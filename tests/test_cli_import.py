import pytest
import typer
from typer.testing import CliRunner

from tests.authors.made import PAIR_FEATURES, pair, rows, write
from widespectrum.cli_import import import_dataset
from widespectrum.prompts import read_prompts


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in an empty folder; its output."""
    app = typer.Typer()
    app.command()(import_dataset)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_a_table(call, tmp_path):
    place = write(tmp_path / "data", [pair("a cat", "a dim cat")], PAIR_FEATURES)
    said = call("anti_aesthetics_dataset", place)
    assert said == "1 prompt pairs\nimported into tables/anti_aesthetics_dataset.parquet\n"
    assert len(read_prompts(tmp_path / "tables" / "anti_aesthetics_dataset.parquet")) == 2


def test_a_run(call, tmp_path):
    place = write(tmp_path / "data", rows("flux_dev"))
    said = call("aas_benchmark_final", place, "--out", "runs/paper")
    assert said.endswith("imported into runs/paper. Next: widespectrum evaluate runs/paper\n")
    assert (tmp_path / "runs" / "paper" / "manifest.json").is_file()
