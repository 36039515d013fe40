"""The headline tables: one row per model, one column per metric, every estimate with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import NamedTuple

from widespectrum.tables import REWARD_MODEL_COLUMNS, SUBSET_NAMES, format_number

from .material import Estimate, Material

__all__ = [
    "Column",
    "Place",
    "Table",
    "comparison_table",
    "cut_table",
    "estimate_table",
    "generator_table",
    "generator_tables_by_reward_model",
    "judge_tables",
    "reward_model_table",
]


class Column(NamedTuple):
    """The head of a column and what stands in it."""

    title: str
    meaning: str


class Cell(NamedTuple):
    """What a cell shows; `mark` refers to the footnote that says why there is no estimate."""

    text: str
    interval: str = ""
    value: float = math.nan
    mark: str = ""


class Row(NamedTuple):
    """One model."""

    label: str
    cells: list[Cell]


class Place(NamedTuple):
    """Where the estimates of a row stand: `suffix` is added to the name of every metric."""

    label: str
    model: str
    subset: str
    suffix: str = ""


class Table(NamedTuple):
    """A table as the page shows it; `footnotes` are (mark, reason)."""

    title: str
    corner: str
    columns: list[Column]
    rows: list[Row]
    footnotes: list[tuple[str, str]]


REWARD_MODEL_MEANINGS = {
    "image_prior": "mean Q: the preference for I_a whatever the prompt says; negative is a taste for the plain image",
    "prompt_match": "mean X: how far changing the prompt moves the preference toward I_a; 0 does not read the prompt",
    "prior_over_match": "−mean Q / mean X; above 1 the taste outweighs what was asked for",
    "accuracy_under_original": "share of pairs in which I_o scores higher under p_o",
    "accuracy_under_wide_spectrum": "share of pairs in which I_a scores higher under p_a",
    "both_ways_accuracy": "share of pairs right under both prompts; 0 for a model blind to the prompt, ¼ at random",
}
TIE_GROUP = {"tie_group": Column("group", "models of one group cannot be told from its best, after Holm's correction")}
COMPARISON_COLUMNS = {
    "both_ways_accuracy_difference": Column("Δ both ways", "share right under both prompts, first minus second model"),
    "both_ways_accuracy_cluster_p_holm": Column(
        "p", "cluster-robust t test of it, after Holm's correction; before it never below 2^(1 − captions)"
    ),
    "accuracy_under_wide_spectrum_difference": Column("Δ right, p_a", "share right under p_a, first minus second"),
    "accuracy_under_wide_spectrum_cluster_p_holm": Column("p", "the same test of it"),
    "prior_over_match_difference": Column("Δ prior/match", "prior over match, first minus second"),
}
COUNTS = {
    "n_pairs": Column("pairs", "image pairs that the figures rest on"),
    "n_prompts": Column("captions", "distinct plain captions among them: what the intervals resample"),
}
GENERATOR_COLUMNS = {
    "success_rate": Column(
        "success", "share of requests whose I_a the judge finds the better fit to p_a; ties and refusals fail"
    ),
    "coverage/verdict": Column("judged", "share of requests that have a verdict"),
    "refusal_rate": Column("refused", "share of requests that the generator refused"),
    "failure_rate": Column("failed", "share of requests whose images were not made"),
    "delta_j_selected": Column("ΔJ selected", "change of the dimension scores, summed over the dimensions asked for"),
    "delta_j_all": Column("ΔJ all", "change of the dimension scores, summed over all eleven dimensions"),
    "effect_gain": Column("effects", "how much more of the requested effects I_a shows than I_o"),
    "content_preservation": Column("content kept", "main concept in I_a relative to I_o; 1 = as visible as before"),
    "emotion_match": Column("emotion", "how well the faces match the emotion asked for, 0 to 1"),
    "emotion_match_minus_control": Column("− happy", "the same, less that of happy faces when happy is asked for"),
    "emotion_face_rate": Column("faces", "share of these images in which a face was found; else all of it was rated"),
    "wilcoxon_j_r": Column("r on ΣJ", "effect size against the base generator, on the sum of the dimension scores"),
    "wilcoxon_j_p": Column("p on ΣJ", "its p, one-sided"),
    "mcnemar_p": Column("p on success", "exact McNemar test against the base generator, two-sided"),
}
BY_JUDGE = {
    "success_rate": ("verdict", "Success by judge"),
    "effect_gain": ("effect", "Effects by judge"),
    "content_preservation": ("content", "Content kept by judge"),
    "delta_j_selected": ("dimension", "ΔJ selected by judge"),
}
BY_REWARD_MODEL = {
    "delta_reward": Column("Δ reward", "mean r(I_a,p_o) − r(I_o,p_o); lower = left the mainstream look when asked to"),
    "reward_after": Column("reward after", "mean r(I_a,p_o)"),
    "escape_rate": Column("escape", "share of I_a below the 10th percentile of r(I_o,p_o)"),
    "polish_overlap": Column("overlap", "how much the rewards of I_a and I_o overlap; 1 = the same range"),
    "wilcoxon_r": Column(
        "r vs base", "Wilcoxon effect size on r(I_a,p_o), base − aligned: negative = aligned is higher"
    ),
    "wilcoxon_p": Column("p vs base", "its p, one-sided"),
}


def _shown(value: float, width: float = 0.0) -> str:
    return format_number(value, width).replace("-", "−")


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}".replace("-", "−")


def _cell(metric: str, estimate: Estimate) -> Cell:
    name = metric.partition("/")[0]
    if name in COUNTS or name in TIE_GROUP:
        return Cell(f"{estimate.value:,.0f}", value=estimate.value)
    if name.endswith(("_p", "_p_holm")):
        return Cell(_p_value(estimate.value), value=estimate.value)
    if not estimate.has_interval:
        return Cell(_shown(estimate.value), value=estimate.value)
    width = estimate.high - estimate.low
    low, high = _shown(estimate.low, width), _shown(estimate.high, width)
    return Cell(_shown(estimate.value, width), f"[{low}, {high}]", estimate.value)


def _default_reason(metric: str) -> str:
    tested = metric.startswith(("wilcoxon", "mcnemar"))
    return "the run names no base generator for this one" if tested else "no pair to compute it from"


def estimate_table(
    material: Material, title: str, corner: str, columns: Mapping[str, Column], places: Sequence[Place]
) -> Table:
    """One row per place. A gap carries a mark, and the footnote of that mark its reason."""
    marks: dict[str, str] = {}
    rows = []
    for label, model, subset, suffix in places:
        cells = []
        for metric in (f"{name}{suffix}" for name in columns):
            estimate = material.estimates.get((model, subset, metric))
            if estimate is not None:
                cells.append(_cell(metric, estimate))
                continue
            reason = material.reasons.get((model, subset, metric)) or _default_reason(metric)
            cells.append(Cell("–", mark=marks.setdefault(reason, ascii_lowercase[len(marks) % 26])))
        rows.append(Row(label, cells))
    return Table(title, corner, list(columns.values()), rows, [(mark, reason) for reason, mark in marks.items()])


def _present(material: Material, columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns in which at least one generator has an estimate."""
    found = {metric for model, subset, metric in material.estimates if subset == "all" and model in material.generators}
    return {metric: column for metric, column in columns.items() if metric in found}


def reward_model_table(material: Material) -> Table:
    """Prior against match, and the accuracies, on the headline subset."""
    columns = {metric: Column(title, REWARD_MODEL_MEANINGS[metric]) for metric, title in REWARD_MODEL_COLUMNS.items()}
    columns |= TIE_GROUP
    places = [Place(model, model, material.subset) for model in material.reward_models]
    sizes = {
        tuple(material.estimates[model, material.subset, name].value for name in COUNTS)
        for _, model, _, _ in places
        if (model, material.subset, "n_pairs") in material.estimates
    }
    title = f"Reward models, on {SUBSET_NAMES[material.subset]}"
    if len(sizes) == 1:
        pairs, captions = sizes.pop()
        title += f" ({pairs:,.0f} pairs, {captions:,.0f} captions)"
    else:
        columns |= COUNTS
    return estimate_table(material, title, "reward model", columns, places)


def cut_table(material: Material) -> Table | None:
    """The reward models on prompts that they cut off, and on those that they read to the end; None where none is."""
    models = [model for model in material.reward_models if (model, "all/prompt=cut", "n_pairs") in material.estimates]
    places = [
        Place(f"{model}, {kind} prompts", model, f"{material.subset}/prompt={kind}")
        for model in models
        for kind in ("cut", "uncut")
    ]
    columns = {metric: Column(title, REWARD_MODEL_MEANINGS[metric]) for metric, title in REWARD_MODEL_COLUMNS.items()}
    title = f"Prompts longer than the window of a reward model, on {SUBSET_NAMES[material.subset]}"
    return estimate_table(material, title, "reward model", columns | COUNTS, places) if places else None


def comparison_table(material: Material) -> Table | None:
    """Every two reward models on the pairs that both scored; None where a run has but one."""
    metric = "both_ways_accuracy_difference"
    found = [key for key in material.estimates if key[1] == material.subset and key[2].startswith(f"{metric}/")]
    places = [
        Place(f"{model} – {rival}", model, subset, f"/{rival}")
        for model, subset, rival in ((model, subset, name.removeprefix(f"{metric}/")) for model, subset, name in found)
    ]
    title = f"Every two reward models, on {SUBSET_NAMES[material.subset]}"
    return estimate_table(material, title, "first – second", COMPARISON_COLUMNS, places) if places else None


def generator_table(material: Material) -> Table | None:
    """What does not depend on a reward model; None where a run has nothing of it."""
    columns = _present(material, GENERATOR_COLUMNS)
    if "success_rate" in columns:
        columns |= TIE_GROUP
    places = [Place(generator, generator, "all") for generator in material.generators]
    return estimate_table(material, "Generators", "generator", columns, places) if columns else None


def judge_tables(material: Material) -> list[Table]:
    """The generators by judge, for what several judges of the run say."""
    tables = []
    for metric, (role, title) in BY_JUDGE.items():
        found = {name for _, subset, name in material.estimates if subset == "all"}
        others = [label for label in material.specs("judges") if f"{metric}/{label}" in found]
        if not others:
            continue
        own = getattr(material.judges, role)
        columns = {metric: Column(own, "the judge whose answers count elsewhere on this page")}
        columns |= {f"{metric}/{label}": Column(label, "another judge of the run") for label in others}
        places = [Place(generator, generator, "all") for generator in material.generators]
        tables.append(estimate_table(material, title, "generator", columns, places))
    return tables


def generator_tables_by_reward_model(material: Material) -> list[Table]:
    """The generators under each reward model."""
    places = [Place(generator, generator, "all") for generator in material.generators]
    tables = []
    for model in material.reward_models:
        columns = _present(material, {f"{metric}/{model}": column for metric, column in BY_REWARD_MODEL.items()})
        tables.append(estimate_table(material, f"Generators under {model}", "generator", columns, places))
    return tables
