"""Fills the tables that the README and the cards compute from the authors' released scores.

python cards/fill_tables.py scores_3300.csv prompt_dims_300.csv [--check]

A page holds a table between the lines `<!-- table NAME -->` and `<!-- end of table -->`. Both files are columns of the
authors' dataset `weathon/aas_benchmark_final`, which carries no licence and is not passed on here: the scores, and the
dimensions of each prompt (`index`, and `dims` joined by "|"). With `--check` nothing is written; every table that
differs is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from widespectrum.functional import anti_aesthetic_adherence, reward_bias

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "metrics/reward_bias/README.md", "metrics/anti_aesthetic_adherence/README.md")
MODELS = {"HPSv3": "hpsv3", "HPSv2.1": "hpsv2", "ImageReward": "image_reward"}
CELLS = {"r_io_po": "oiop", "r_io_pa": "oidp", "r_ia_po": "diop", "r_ia_pa": "didp"}
BLOCK = {
    "image_prior": "prior Q",
    "prompt_match": "match X",
    "match_positive_rate": "X > 0",
    "prior_over_match": "prior over match",
    "accuracy_under_original": "right, p_o",
    "accuracy_under_wide_spectrum": "right, p_a",
    "both_ways_accuracy": "both ways",
}
_MARKED = re.compile(r"(<!-- table ([a-z0-9 .-]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL | re.IGNORECASE)

Table: TypeAlias = Callable[[pd.DataFrame, Mapping[str, list[str]]], str]


def read_scores(path: Path) -> pd.DataFrame:
    """The authors' rows without the block that is there twice; prompts are labelled by the text of their number."""
    table = pd.read_csv(path)
    return table[table["duplicate_block"] == 0].assign(prompt_id=lambda rows: rows["prompt_index"].astype(str))


def read_dimensions(path: Path) -> dict[str, list[str]]:
    """Prompt number, as text, to the dimensions that the prompt selects."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["index"]: row["dims"].split("|") for row in csv.DictReader(file)}


def _rewards(rows: pd.DataFrame, model: str, names: Sequence[str] = tuple(CELLS)) -> dict[str, Any]:
    columns = {name: rows[f"{MODELS[model]}_{CELLS[name]}"].to_numpy() for name in names}
    return columns | {"prompt_id": rows["prompt_id"].tolist()}


def number(value: float, digits: int) -> str:
    """Rounded, with a minus sign, without the zero before the point."""
    text = f"{round(value, digits) + 0.0:.{digits}f}"
    return text.replace("-", "−").replace("0.", ".", 1) if abs(float(text)) < 1 else text.replace("-", "−")


def estimate(result: Mapping[str, Any], name: str, digits: int) -> str:
    """The estimate with its interval; a dash where it is not given."""
    if name not in result:
        return "–"
    ends = (number(result[f"{name}_ci_{end}"], digits) for end in ("low", "high"))
    return f"{number(result[name], digits)} [{', '.join(ends)}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(name: str, result: Mapping[str, Any]) -> list[str]:
    small = max(abs(result["image_prior"]), result["prompt_match"]) < 0.1
    digits = {"image_prior": 4 if small else 2, "prompt_match": 4 if small else 2}
    return [name, *(estimate(result, metric, digits.get(metric, 2)) for metric in BLOCK)]


def _pooled(scores: pd.DataFrame, model: str) -> dict[str, Any]:
    return reward_bias(**_rewards(scores, model), image_seed=scores["paper_label"].tolist())


def headline(scores: pd.DataFrame, _: Mapping[str, list[str]]) -> str:
    """What the README shows first."""
    columns = {"prior_over_match": "prior over match", "accuracy_under_original": "right, plain caption"}
    columns |= {"accuracy_under_wide_spectrum": "right, effects asked for", "both_ways_accuracy": "right both ways"}
    results = {name: _pooled(scores, name) for name in MODELS}
    rows = [[name, *(estimate(result, metric, 2) for metric in columns)] for name, result in results.items()]
    return markdown(["reward model", *columns.values()], rows)


def models(scores: pd.DataFrame, _: Mapping[str, list[str]]) -> str:
    """The three reward models on all pairs."""
    rows = [_row(name, _pooled(scores, name)) for name in MODELS]
    return markdown(["reward model", *BLOCK.values()], rows)


def by_generator(model: str) -> Table:
    """The block of one reward model per generator, over all pairs, and as the mean over generators."""

    def table(scores: pd.DataFrame, _: Mapping[str, list[str]]) -> str:
        result = reward_bias(**_rewards(scores, model), group=scores["paper_label"].tolist())
        blocks = [result["by_group"][name] for name in scores["paper_label"].unique()]
        rows = [_row(name, block) for name, block in zip(scores["paper_label"].unique(), blocks, strict=True)]
        rows += [_row("**all pairs**", result), _row("**mean of the generators**", result["macro"])]
        return markdown([f"{model}, images of", *BLOCK.values()], rows)

    return table


def by_dimension(model: str) -> Table:
    """The block of one reward model per dimension: the pairs whose prompt selects it."""

    def table(scores: pd.DataFrame, dimensions: Mapping[str, list[str]]) -> str:
        rows = scores.assign(dimension=[dimensions[index] for index in scores["prompt_id"]]).explode("dimension")
        keys = {"group": rows["dimension"].tolist(), "image_seed": rows["paper_label"].tolist()}
        result = reward_bias(**_rewards(rows, model), **keys)
        named = [(f"{name} ({block['n_prompts']} prompts)", block) for name, block in result["by_group"].items()]
        return markdown([f"{model}, prompts that ask for", *BLOCK.values()], [_row(*pair) for pair in named])

    return table


def ratios(scores: pd.DataFrame, _: Mapping[str, list[str]]) -> str:
    """Prior over match of the three reward models per generator."""
    groups = scores["paper_label"].tolist()
    results = [reward_bias(**_rewards(scores, name), group=groups)["by_group"] for name in MODELS]
    rows = [
        [name, *(estimate(blocks[name], "prior_over_match", 2) for blocks in results)]
        for name in scores["paper_label"].unique()
    ]
    return markdown(["images of", *MODELS], rows)


def adherence(scores: pd.DataFrame, _: Mapping[str, list[str]]) -> str:
    """The generators by HPSv3, beside what the paper prints."""
    with (ROOT / "leaderboard/published/generators.csv").open(encoding="utf-8", newline="") as file:
        printed = {(row["label"], row["metric"]): row["value"] for row in csv.DictReader(file)}
    rows = []
    for name, own in scores.groupby("paper_label", sort=False):
        result = anti_aesthetic_adherence(**_rewards(own, "HPSv3", ("r_io_po", "r_ia_po")))
        paper = [number(float(printed[str(name), metric]), 3) for metric in ("success_rate", "delta_reward/hpsv3")]
        columns = (("delta_reward", 3), ("escape_rate", 2), ("polish_overlap", 2))
        rows.append([str(name), *paper, *(estimate(result, metric, digits) for metric, digits in columns)])
    return markdown(
        ["generator", "success (paper)", "ΔHPSv3 (paper)", "`delta_reward`", "`escape_rate`", "`polish_overlap`"], rows
    )


TABLES: dict[str, Table] = {"headline": headline, "models": models, "ratios": ratios, "adherence": adherence}
TABLES |= {f"{name} by generator": by_generator(name) for name in MODELS}
TABLES |= {f"{name} by dimension": by_dimension(name) for name in MODELS}


def fill(text: str, made: Callable[[str], str]) -> str:
    """`text` with every marked table replaced by what `made` gives for its name."""
    return _MARKED.sub(lambda found: f"{found[1]}{made(found[2])}{found[4]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or with `--check` name those that differ and return 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="scores_3300.csv of the authors' release")
    parser.add_argument("dimensions", type=Path, help="prompt_dims_300.csv: the dimensions of each prompt")
    parser.add_argument("--check", action="store_true", help="write nothing; name every table that differs")
    options = parser.parse_args(arguments)
    scores, dimensions = read_scores(options.scores), read_dimensions(options.dimensions)
    found: dict[str, str] = {}

    def made(name: str) -> str:
        if name not in TABLES:
            parser.error(f"a page asks for the table {name!r}; there are: {', '.join(TABLES)}")
        if name not in found:
            found[name] = TABLES[name](scores, dimensions)
        return found[name]

    differing = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        tables = {name: body for _, name, body, _ in _MARKED.findall(text)}
        differing += [f"{page}: table {name!r}" for name, body in tables.items() if made(name) != body]
        if not options.check:
            (ROOT / page).write_text(fill(text, made), encoding="utf-8")
    print("\n".join(differing) or "every table is as computed")
    return int(options.check and bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
