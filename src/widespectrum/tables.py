"""Results as plain text for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import isnan
from pathlib import Path

import pandas as pd

from .columns import SUBSETS, effect_strength
from .repeats import repeated_images
from .results import read_evaluation, read_results
from .runs import read_manifest
from .types import ModelSpec

__all__ = [
    "cautions",
    "format_estimate",
    "format_number",
    "headline",
    "headline_subset",
    "model_list",
    "model_page",
    "text_table",
]

REWARD_MODEL_COLUMNS = {
    "image_prior": "prior Q",
    "prompt_match": "match X",
    "prior_over_match": "prior/match",
    "accuracy_under_original": "right, p_o",
    "accuracy_under_wide_spectrum": "right, p_a",
    "both_ways_accuracy": "right both ways",
}
GENERATOR_COLUMNS = {
    "success_rate": "success",
    "coverage/verdict": "judged",
    "refusal_rate": "refused",
    "failure_rate": "failed",
    "effect_gain": "effects",
    "content_preservation": "content kept",
    "delta_j_selected": "ΔJ selected",
}
REWARD_METRICS = ("delta_reward", "reward_after")
REWARD_MODELS_ABREAST = 3
"""Up to so many reward models the terminal has room for their figures of each generator."""

LEGEND = """\
Q: preference for the wide-spectrum image whatever the prompt. X: what asking for it moves the preference toward it.
right: the higher score goes to the image that the prompt asked for. –: not given, for the reason in the report."""

FEW_CAPTIONS = 30
"""Below this many distinct captions a bootstrap over captions shows how intervals are made, not how wide they are."""

SUBSET_NAMES = {
    "controlled": "pairs whose image shows by construction what was asked for",
    "verified": "pairs of which the judge says that the image fits the wide-spectrum prompt better",
    "all": "all pairs, whether or not the generator did what was asked",
}


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; the first one is flush left, the others flush right."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_number(value: float, width: float = 0.0) -> str:
    """Three decimals as the paper prints them; fewer where an interval of this width makes them meaningless.

    >>> format_number(-0.0354), format_number(-13.55, width=17), format_number(-0.0001)
    ('-0.035', '-13.55', '0.000')
    """
    size = max(abs(value) / 10, width)
    digits = 3 if size < 5 else 2 if size < 50 else 1 if size < 500 else 0
    # Adding 0 turns -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:.{digits}f}"


def format_estimate(value: float, low: float, high: float) -> str:
    """The value with its interval; without one (NaN) the value.

    >>> format_estimate(0.5, 0.25, 0.75)
    '0.500 [0.250, 0.750]'
    """
    if isnan(low):
        return format_number(value)
    return f"{format_number(value, high - low)} [{format_number(low, high - low)}, {format_number(high, high - low)}]"


def headline_subset(results: pd.DataFrame) -> str:
    """The subset on which the reward models of these results are compared."""
    return next((subset for subset in SUBSETS if (results["subset"] == subset).any()), "all")


def _rows(results: pd.DataFrame, subset: str, columns: Sequence[str], models: Sequence[str]) -> list[list[str]]:
    chosen = results[results["subset"] == subset].set_index(["model", "metric"])
    cells = {key: format_estimate(row.value, row.ci_low, row.ci_high) for key, row in chosen.iterrows()}
    return [[model, *(cells.get((model, metric), "–") for metric in columns)] for model in models]


def cautions(run: Path) -> list[str]:
    """What a reader of this run's figures must know before trusting them."""
    manifest, judge = read_manifest(run), read_evaluation(run).verdict_judge
    generators = [ModelSpec.parse(text) for text in manifest.specs["generators"].values()]
    spec = ModelSpec.parse(manifest.specs["judges"][judge]) if judge else None
    found = []
    results = read_results(run)
    captions = int(results.loc[(results["metric"] == "n_prompts") & (results["subset"] == "all"), "value"].max())
    failed = results[(results["metric"] == "failure_rate") & (results["subset"] == "all") & (results["value"] > 0)]
    if not failed.empty:
        found.append(
            f"This run is not finished: {', '.join(failed['model'])} did not make every image that was asked for. What "
            f"is missing counts in failure_rate and nowhere else. To go on: widespectrum run {run}"
        )
    if 0 < captions < FEW_CAPTIONS:
        few = "1 plain caption gives no interval and" if captions == 1 else f"{captions} plain captions"
        found.append(
            f"{few} cannot stand for any population: the intervals merely illustrate how figures are reported, they "
            "support no conclusion."
        )
    if spec and spec.adapter == "pixel" and any(effect_strength(generator) is not None for generator in generators):
        found.append(
            "Judging photo-effects with the pixel judge is circular: the judge measures the very properties that the "
            "generator changes, so its verdicts show that the machinery works and nothing more."
        )
    if any(generator.adapter == "image-edit" for generator in generators):
        found.append(
            "The pairs of image-edit are an input and its edit. Its own figures say how far it polishes its inputs; "
            "those of reward models on its pairs say nothing about their image prior or their prompt match."
        )
    found += _partly_judged(results)
    found += repeated_images(run, dict(manifest.specs["generators"]))
    found += _cut_prompts(results)
    if spec and spec.adapter == "rule":
        model = spec.params["reward_model"]
        found.append(f"The rule judge repeats the scores of {model}: agreement of {model} with it says nothing.")
    return found


def _partly_judged(results: pd.DataFrame) -> list[str]:
    """The generators of which some images have no verdict, while all refusals count."""
    shares = results[results["subset"] == "all"].pivot(index="model", columns="metric", values="value")
    names = ["coverage/verdict", "refusal_rate", "failure_rate"]
    if "success_rate" not in shares or not set(names) <= set(shares):
        return []
    judged, refused, failed = (shares[name] for name in names)
    partly = shares.index[(refused > 0) & (judged > 0) & (judged + refused + failed < 1 - 1e-9)]
    if partly.empty:
        return []
    return [
        f"Only some of the images of {', '.join(partly)} have a verdict, but all refusals count: where pairs were "
        "drawn for judging, refusals weigh too much in the success rate."
    ]


def _cut_prompts(results: pd.DataFrame) -> list[str]:
    """Which reward models did not read all of the prompts."""
    found = []
    for row in results[(results["metric"] == "cut_rate") & (results["value"] > 0)].itertuples():
        rates = results[(results["model"] == row.model) & (results["metric"] == "past_window_rate")]
        lost = [
            f"{each.subset.partition('=')[2]} ({round(each.value * each.n)} of {each.n})" for each in rates.itertuples()
        ]
        asked = f" Asked for in words that are cut off, at least in part: {', '.join(lost)}." if lost else ""
        found.append(
            f"{row.model} read only the beginning of {round(row.value * row.n)} of {row.n} prompt pairs, the rest is "
            f"longer than its window.{asked} Its figures for cut and for uncut prompts stand apart in the results, as "
            "prompt=cut and prompt=uncut."
        )
    for row in results[(results["metric"] == "special_rate") & (results["value"] > 0)].itertuples():
        found.append(
            f"{round(row.value * row.n)} of {row.n} prompt pairs hold text that is a special token for {row.model}."
        )
    return found


def headline(run: Path) -> str:
    """The tables of a run: reward models, then generators."""
    results = read_results(run)
    subset = headline_subset(results)
    reward_models = list(dict.fromkeys(results.loc[results["metric"] == "image_prior", "model"]))
    made = read_manifest(run).specs["generators"]
    generators = [model for model in dict.fromkeys(results["model"]) if model in made]
    columns = {metric: title for metric, title in GENERATOR_COLUMNS.items() if (results["metric"] == metric).any()}
    if len(reward_models) <= REWARD_MODELS_ABREAST:
        columns |= {f"{metric}/{model}": f"{metric}/{model}" for model in reward_models for metric in REWARD_METRICS}
    bias = _rows(results, subset, list(REWARD_MODEL_COLUMNS), reward_models)
    adherence = _rows(results, "all", list(columns), generators)
    level = f"{100 * results['level'].iloc[0]:g} %"
    return "\n".join(
        [
            f"\nReward models, on {SUBSET_NAMES[subset]}; {level} intervals",
            text_table(["reward model", *REWARD_MODEL_COLUMNS.values()], bias),
            f"\nGenerators; {level} intervals",
            text_table(["generator", *columns.values()], adherence),
            "",
            LEGEND,
            "",
            *(textwrap.fill(caution, 120) for caution in cautions(run)),
        ]
    )


def model_page(name: str) -> str:
    """What is known of one model: of a reward model what its card says, of the others their settings."""
    from .generators import GENERATORS
    from .generators.facts import describe as describe_generator
    from .judges import JUDGES
    from .judges.facts import describe as describe_judge
    from .registry import unknown_name
    from .rewards import REWARD_MODELS, entry_of
    from .rewards.facts import describe

    others = {**GENERATORS, **JUDGES}
    if name in GENERATORS:
        return describe_generator(name)
    if name in JUDGES:
        return describe_judge(name)
    if name not in REWARD_MODELS and not name.startswith("clip:"):
        raise unknown_name("model", name, {**REWARD_MODELS, **others}, "widespectrum models")
    entry_of(name)
    return describe(name)


def model_list() -> str:
    """Every registered name, what it is, and whether what it needs is installed."""
    from .generators import GENERATORS
    from .judges import JUDGES
    from .prompts import PROMPT_SETS
    from .registry import missing_packages
    from .rewards import REWARD_MODELS

    blocks = []
    for title, table in (("generators", GENERATORS), ("reward models", REWARD_MODELS), ("judges", JUDGES)):
        lines = [title]
        width = max(map(len, table))
        for name, entry in sorted(table.items()):
            missing = missing_packages(entry)
            state = f'not installed: pip install "widespectrum[{entry.extra}]"' if missing else "installed"
            extra = f"extra {entry.extra}, " if entry.extra else ""
            lines.append(f"  {name:<{width}} {entry.summary} ({extra}{state})")
        if table is REWARD_MODELS:
            about = "any CLIP or SigLIP: clip:<repo>@<revision> or a folder (extra rewards)"
            lines.append(f"  {'clip:<repo>':<{width}} {about}")
        blocks.append("\n".join(lines))
    sets = [f"  {name:<16} {source.summary}" for name, source in PROMPT_SETS.items()]
    return "\n\n".join([*blocks, "\n".join(["prompt sets", *sets])])
