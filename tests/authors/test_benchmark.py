import csv
import io

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from tests.authors.made import DIMS, JUDGED, PAIRS, SCORE_COLUMNS, png, row, rows, scores, write
from widespectrum import store
from widespectrum.authors import import_dataset
from widespectrum.config import read_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.importers import import_scores
from widespectrum.results import evaluate, read_results
from widespectrum.runs import read_manifest
from widespectrum.types import DIMENSIONS


def read(run, table):
    return store.read(run, table).to_pandas()


def test_benchmark_becomes_a_run(place, tmp_path):
    made = rows("dance_flux", "flux_dev")
    run = tmp_path / "run"
    notices = import_dataset("aas_benchmark_final", str(write(place, made).parent), run)
    assert notices == ["8 pairs of 2 generators under 3 reward models"]
    assert read_manifest(run).status == "complete"
    prompts = read(run, "prompts")
    assert len(prompts) == 2 * PAIRS
    wide = prompts[(prompts["pair_id"] == "aas:2") & (prompts["role"] == "wide_spectrum")].iloc[0]
    assert (wide["text"], list(wide["dimensions"])) == ("a spoiled thing number 2", DIMS[2])
    images = read(run, "images")
    stored = {image["bytes"] for image in images["image"]}
    assert stored == {each[name]["bytes"] for each in made for name in ("image_original", "image_distorted")}
    assert set(images["width"]) == {16}
    verdicts = read(run, "verdicts").merge(prompts[["prompt_id", "pair_id"]])
    overall = verdicts[(verdicts["dimension"] == "overall") & (verdicts["judge"] == "authors")]
    assert dict(zip(overall["pair_id"], overall["outcome"], strict=True)) == {
        "aas:0": 1.0, "aas:1": 0.0, "aas:2": 0.5, "aas:3": 1.0,
    }  # fmt: skip
    third = verdicts[verdicts["judge"] == "glm-4.5v"]
    assert set(third["pair_id"]) == {"aas:0", "aas:1", "aas:2"}
    assert set(third["outcome"]) == {0.5}
    rated = verdicts[(verdicts["dimension"] == DIMENSIONS[3]) & (verdicts["rival_id"] == "")]
    assert rated["outcome"].to_numpy() == pytest.approx(np.full(16, 0.15))
    assert read_run_file(run).evaluate.bases == {"dance-flux": "flux-dev"}


def test_benchmark_and_numeric_table_give_the_same_figures(place, tmp_path):
    tags = ("dance_flux", "flux_dev")
    import_dataset("aas_benchmark_final", str(write(place, rows(*tags))), tmp_path / "run")
    with (tmp_path / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model_tag", "prompt_index", *SCORE_COLUMNS])
        writer.writerows([tag, index, *scores(tag, index)] for tag in tags for index in range(PAIRS))
    import_scores(tmp_path / "scores.csv", tmp_path / "numeric")
    results = {}
    for name in ("run", "numeric"):
        evaluate(tmp_path / name, read_run_file(tmp_path / name))
        found = read_results(tmp_path / name).set_index(["metric", "model", "subset"])
        results[name] = found[["value", "ci_low", "ci_high", "n"]]
    # What counts verdicts, and Holm's families, which they enlarge, is not in the numeric table.
    verdicts = ("coverage/", "n_positive", "n_negative", "n_tie", "_holm")
    numbers = [key for key in results["numeric"].index if not any(name in key[0] for name in verdicts)]
    shared = results["run"].index.intersection(numbers)
    assert len(shared) > 150
    assert {"image_prior", "delta_reward/hpsv3", "wilcoxon_p/hpsv3"} <= {metric for metric, _, _ in shared}
    ours, numeric = results["run"].loc[shared], results["numeric"].loc[shared]
    np.testing.assert_allclose(ours.to_numpy(), numeric.to_numpy(), rtol=1e-12, equal_nan=True)
    assert ("success_rate", "dance-flux", "all") in results["run"].index
    assert ("delta_j_all", "dance-flux", "all") in results["run"].index


def test_benchmark_leaves_the_repeated_block_out(place, tmp_path):
    repeats = [row("sd3_medium_grpo_2", index, values_of="sd3_medium_grpo") for index in reversed(range(PAIRS))]
    write(place, [*rows("sd3_medium_grpo"), *repeats])
    notices = import_dataset("aas_benchmark_final", str(place), tmp_path / "run")
    assert notices[0] == "left out 'sd3_medium_grpo_2': its 4 rows repeat the scores of 'sd3_medium_grpo'"
    assert set(read(tmp_path / "run", "images")["generator"]) == {"sd3.5m-pickscore"}


def test_benchmark_leaves_out_what_was_no_answer(place, tmp_path):
    made = rows("flux_dev")
    blue = io.BytesIO()
    PIL.Image.new("RGB", (128, 128), "blue").save(blue, "PNG")
    made[1]["image_distorted"]["bytes"] = blue.getvalue()
    made[0]["llm_judge"] = dict.fromkeys(JUDGED, 0) | {"llm_original_reasoning": "", "llm_distorted_reasoning": ""}
    made[3]["image_original"] = made[2]["image_original"]
    write(place, made)
    notices = import_dataset("aas_benchmark_final", str(place), tmp_path / "run")
    assert "left out 1 rows with an image of one single color, a failed call: " in notices[0]
    assert notices[0].endswith("train-00000-of-00001.parquet, row 2")
    assert notices[1].startswith("1 images are stored more than once, byte for byte: ")
    assert notices[2].startswith("1 rows carry no rating of main concept and effects")
    assert set(read(tmp_path / "run", "scores")["pair_id"]) == {"aas:0", "aas:2", "aas:3"}
    verdicts = read(tmp_path / "run", "verdicts")
    assert len(verdicts[verdicts["dimension"] == "effects"]) == 2 * 2


def test_benchmark_import_goes_on_where_it_stopped(place, tmp_path, monkeypatch):
    write(place, rows("flux_dev"), name="train-00000-of-00002")
    write(place, rows("flux_krea"), name="train-00001-of-00002")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    import_dataset("aas_benchmark_final", str(place), whole)
    monkeypatch.setattr("widespectrum.authors.images._BYTES_PER_PART", 1)
    append, calls = store.append, []

    def stop_at_the_third(run, table, *arguments, **keywords):
        calls.append(table)
        if calls.count("images") == 3:
            raise KeyboardInterrupt
        return append(run, table, *arguments, **keywords)

    monkeypatch.setattr(store, "append", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        import_dataset("aas_benchmark_final", str(place), cut)
    monkeypatch.setattr(store, "append", append)
    assert read_manifest(cut).status == "started"
    assert len(read(cut, "images")) == 4
    import_dataset("aas_benchmark_final", str(place), cut)
    for table in ("prompts", "images", "scores", "verdicts"):
        one, other = (store.read(run, table).to_pylist() for run in (whole, cut))
        assert len(one) == len(other) > 0
        assert all(each in other for each in one)
    before = sorted(cut.rglob("*.parquet"))
    import_dataset("aas_benchmark_final", str(place), cut)
    assert sorted(cut.rglob("*.parquet")) == before
    write(place, rows("playground"), name="train-00001-of-00002")
    with pytest.raises(RunFolderError, match="choose another folder with --out"):
        import_dataset("aas_benchmark_final", str(place), cut)


def test_benchmark_reads_images_a_few_at_a_time(place, tmp_path, monkeypatch):
    import widespectrum.authors.parquet as module

    write(place, rows("flux_dev", "flux_krea", "playground"))
    sizes = []
    monkeypatch.setattr(module, "_IMAGES_AT_A_TIME", 2)
    original = pq.ParquetFile.iter_batches

    def counting(self, size, **keywords):
        for batch in original(self, size, **keywords):
            if "image_original" in batch.schema.names:
                sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    import_dataset("aas_benchmark_final", str(place), tmp_path / "run")
    assert (max(sizes), sum(sizes)) == (2, 12)


def bad(**cells):
    made = rows("flux_dev")
    made[2].update(cells)
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (bad(selected_dims="clarity"), "row 3: selected_dims must be a JSON list, got 'clarity'"),
        (bad(selected_dims='["charm"]'), "row 3: prompt of pair 'aas:2': unknown dimension 'charm'"),
        (bad(index=1), "row 3: 'flux_dev' already has index 1 in"),
        (bad(index=-1), "row 3: index must be a whole number from 0, got -1"),
        (bad(llm_selected=2), "row 3: llm_selected must be 1, 0 or -1 (a tie), got 2"),
        (bad(model="a:b"), "row 3: model 'a:b' cannot name a generator"),
        (bad(prompt_distorted=" "), "row 3: prompt of pair 'aas:2': the text is empty"),
        (bad(prompt_distorted="a thing number 2"), "row 3: both prompts read 'a thing number 2'"),
        (bad(hpsv3_reward=None), "row 3: hpsv3_reward.hpsv3_oiop must be a list [mu, second head], got None"),
        (bad(image_reward=None), "row 3: image_reward_oiop must be a number from -1e+06 to 1e+06, got None"),
        (bad(image_original={"bytes": b"<html>", "path": None}), "row 3: image_original is not an image"),
        (bad(image_original={"bytes": png(0)[:-20], "path": None}), "row 3: image_original is damaged or cut off"),
        (bad(image_original={"bytes": b"", "path": None}), "row 3: image_original is empty"),
        (
            [*rows("flux_dev"), row("flux_krea", 0) | {"prompt_original": "another"}],
            "row 5: the prompts of index 0 are not those of",
        ),
        ([*rows("flux_dev"), row("flux-dev", 0)], "both stand for generator 'flux-dev'"),
    ],
)
def test_benchmark_rows_that_break_a_rule(place, tmp_path, made, message):
    write(place, made)
    with pytest.raises(InputError) as error:
        import_dataset("aas_benchmark_final", str(place), tmp_path / "run")
    assert message in str(error.value)
    assert "train-00000-of-00001.parquet" in str(error.value) or "flux-dev" in message
