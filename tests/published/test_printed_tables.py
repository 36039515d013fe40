"""The figures that the cards and the README compute from the authors' scores are recomputed here."""

import csv
import re
from functools import cache
from pathlib import Path

import pytest

from widespectrum.functional import anti_aesthetic_adherence, reward_bias

ROOT = Path(__file__).resolve().parents[2]
SCORES = ROOT.parent / "shared" / "data" / "reference" / "scores_3300.csv"
MODELS = {"HPSv3": "hpsv3", "HPSv2.1": "hpsv2", "ImageReward": "image_reward"}
CELLS = {"r_io_po": "oiop", "r_io_pa": "oidp", "r_ia_po": "diop", "r_ia_pa": "didp"}
BIAS_CARD = ["image_prior", "prompt_match", "prior_over_match", "both_ways_accuracy"]
README = ["prior_over_match", "accuracy_under_original", "accuracy_under_wide_spectrum", "both_ways_accuracy"]
ADHERENCE_CARD = ["delta_reward", "escape_rate", "polish_overlap"]

pytestmark = pytest.mark.skipif(not SCORES.is_file(), reason="the authors' scores are not beside the repository")


def table(path, heading):
    """The rows, as lists of cells, of the first table of a page whose head begins with `heading`."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]]


@cache
def authors_rows():
    with SCORES.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["duplicate_block"] == "0"]


def rewards(rows, model, cells):
    columns = {cell: [float(row[f"{model}_{CELLS[cell]}"]) for row in rows] for cell in cells}
    return columns | {"prompt_id": [row["prompt_index"] for row in rows]}


@cache
def bias(model):
    rows = authors_rows()
    return reward_bias(**rewards(rows, MODELS[model], CELLS), image_seed=[row["paper_label"] for row in rows])


@cache
def adherence(generator):
    rows = [row for row in authors_rows() if row["paper_label"] == generator]
    return anti_aesthetic_adherence(**rewards(rows, "hpsv3", ["r_io_po", "r_ia_po"]))


def assert_printed(cell, name, result):
    """The estimate, and its interval where one is printed, rounded to the digits printed."""
    printed = re.findall(r"-?\d*\.\d+", cell.replace("−", "-"))
    assert len(printed) == (3 if "[" in cell else 1)
    for text, key in zip(printed, (name, f"{name}_ci_low", f"{name}_ci_high"), strict=False):
        assert float(text) == round(result[key], len(text.partition(".")[2])), (name, key)


def test_the_prior_against_match_table_of_the_card():
    rows = table("metrics/reward_bias/README.md", "| reward model | image prior |")
    assert {row[0] for row in rows} == set(MODELS)
    for model, *cells in rows:
        for cell, name in zip(cells, BIAS_CARD, strict=True):
            assert_printed(cell, name, bias(model))


def test_the_first_table_of_the_readme():
    rows = table("README.md", "|")
    assert {row[0] for row in rows} == set(MODELS)
    for model, *cells in rows:
        for cell, name in zip(cells, README, strict=True):
            assert_printed(cell, name, bias(model))


def test_the_generator_table_of_the_card():
    rows = table("metrics/anti_aesthetic_adherence/README.md", "| generator | success (paper) |")
    assert {row[0] for row in rows} == {row["paper_label"] for row in authors_rows()}
    for generator, _, printed_by_paper, *cells in rows:
        assert_printed(printed_by_paper, "delta_reward", adherence(generator))
        for cell, name in zip(cells, ADHERENCE_CARD, strict=True):
            assert_printed(cell, name, adherence(generator))
