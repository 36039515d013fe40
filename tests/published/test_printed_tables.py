"""The tables that the README and the cards compute from the authors' scores are recomputed here."""

from pathlib import Path

import pytest

from widespectrum.published import load_module

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "data" / "reference"
FILES = [str(REFERENCE / "scores_3300.csv"), str(REFERENCE / "prompt_dims_300.csv")]
tables = load_module(ROOT / "cards" / "fill_tables.py")


def test_every_table_has_a_place_and_every_place_a_table():
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in tables.PAGES)
    assert sorted(name for _, name, _, _ in tables._MARKED.findall(text)) == sorted(tables.TABLES)
    assert text.count("<!-- table ") == text.count("<!-- end of table -->") == len(tables.TABLES)


@pytest.mark.skipif(not Path(FILES[0]).is_file(), reason="the authors' scores are not beside the repository")
def test_every_printed_table_is_what_the_scores_give(capsys):
    assert tables.main([*FILES, "--check"]) == 0, capsys.readouterr().out


def test_a_table_that_differs_is_seen():
    text = "before\n<!-- table models -->\n| old |\n<!-- end of table -->\nafter\n"
    assert tables.fill(text, lambda name: f"| {name} |\n") == text.replace("old", "models")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(-0.0354, 3, "−.035"), (0.0, 2, ".00"), (-0.001, 2, ".00"), (1.0, 2, "1.00"), (10.5, 1, "10.5")],
)
def test_numbers_are_printed_as_the_paper_prints_them(value, digits, text):
    assert tables.number(value, digits) == text


def test_an_estimate_that_is_not_given_is_a_dash():
    assert tables.estimate({}, "auroc", 2) == "–"
    assert tables.estimate({"x": 0.5, "x_ci_low": 0.25, "x_ci_high": 1.0}, "x", 2) == ".50 [.25, 1.00]"
