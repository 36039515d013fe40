import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.authors.made import FEATURES, NUMBER, PAIR_FEATURES, RATED, TEXT, pair, write
from widespectrum import hub
from widespectrum.authors import import_dataset
from widespectrum.authors.benchmark import COLUMNS
from widespectrum.errors import InputError, UnknownNameError


def test_unexpected_columns_are_all_listed(place, tmp_path):
    features = {**FEATURES, "hpsv2": NUMBER, "index": TEXT, "rater": {"original": RATED}}
    del features["blip_score"]
    made = [{name: None for name in features} | {"index": "1"}]
    write(place, made, features)
    with pytest.raises(InputError) as error:
        import_dataset("aas_benchmark_final", str(place), tmp_path / "run")
    message = str(error.value)
    assert "has not the columns of weathon/aas_benchmark_final; missing: blip_score; unexpected: hpsv2; " in message
    assert "mistyped: index (expected whole numbers, got string), rater (expected a struct of original" in message
    assert not (tmp_path / "run").exists()
    assert set(FEATURES) == set(COLUMNS)


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("lapis", {"caption": ["a"], "score": [1.0]}, "missing: scores; unexpected: score:"),
        ("lapis", {"caption": [1], "hpsv3": [1.0]}, "mistyped: caption (expected text, got int64)"),
        (
            "lapis",
            {"caption": ["a"], "hpsv3": ["x"]},
            "mistyped: hpsv3 (expected numbers or lists of numbers, got string)",
        ),
        ("critical_comparsion", {"prompt": ["a"]}, "missing: hpsv3:"),
        (
            "critical_comparsion",
            {"prompt": ["a"], "hpsv3": [{"DanceFlux": 1.0}]},
            "mistyped: hpsv3 (expected a struct of",
        ),
        ("aas_real_images", {"caption": ["a"]}, "missing: image_reward, human_score; mistyped: caption"),
        ("anti_aesthetics_dataset", {"original_prompt": ["a"]}, "missing: disorted_long_prompt, selected, desc:"),
    ],
)
def test_unexpected_schemas(tmp_path, name, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    with pytest.raises(InputError) as error:
        import_dataset(name, str(tmp_path / "data.parquet"), tmp_path / "out.parquet")
    assert f"has not the columns of weathon/{name}; " in str(error.value)
    assert message in str(error.value)


def test_where_the_files_are(tmp_path, place):
    with pytest.raises(UnknownNameError, match="did you mean aas_benchmark_final"):
        import_dataset("aas_benchmark", str(place), tmp_path / "run")
    with pytest.raises(InputError, match=r"no such folder; expected one with the Parquet files of weathon/lapis, or"):
        import_dataset("lapis", str(place), tmp_path / "lapis.parquet")
    place.mkdir(parents=True)
    with pytest.raises(InputError, match="holds no Parquet file; expected the folder of weathon/lapis as downloaded"):
        import_dataset("lapis", str(place), tmp_path / "lapis.parquet")
    (place / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"x\.parquet is no readable Parquet file .*: download it again"):
        import_dataset("lapis", str(place), tmp_path / "lapis.parquet")
    with pytest.raises(InputError, match=r"must end in \.parquet: lapis becomes one table"):
        import_dataset("lapis", str(place), tmp_path / "lapis")
    with pytest.raises(InputError, match="is read from this disk: leave it out"):
        import_dataset("lapis", str(place), tmp_path / "lapis.parquet", revision="a" * 40)


def test_only_known_datasets_are_downloaded(tmp_path, monkeypatch):
    asked = []

    def download_snapshot(*arguments):
        asked.append(arguments)
        return write(tmp_path / "hub", [pair("a cat", "a dim cat")], PAIR_FEATURES)

    monkeypatch.setattr(hub, "download_snapshot", download_snapshot)
    for source in (None, "weathon/anti_aesthetics_dataset"):
        import_dataset("anti_aesthetics_dataset", source, tmp_path / "pairs.parquet", revision="v1")
    assert asked == [("weathon/anti_aesthetics_dataset", "dataset", "v1")] * 2
    with pytest.raises(InputError, match="there is no such folder"):
        import_dataset("anti_aesthetics_dataset", "weathon/lapis", tmp_path / "pairs.parquet")
