"""The model card of a trained judge: what it is, how it was trained, how well it agrees with people."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from .plan import BASE

__all__ = ["card", "figure_table"]

DATA = "zai-org/VisionRewardDB-Image"
_SHOWN = (
    ("quadratic_kappa", "kappa"),
    ("spearman", "Spearman"),
    ("accuracy", "accuracy"),
    ("majority_baseline", "majority"),
)
_APACHE = "apache-2.0"


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _number(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return "undefined"
    if f"{name}_ci_low" not in figures:
        return f"{figures[name]:.2f}"
    return f"{figures[name]:.2f} [{figures[f'{name}_ci_low']:.2f}, {figures[f'{name}_ci_high']:.2f}]"


def figure_table(dimensions: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures of every dimension as a table in Markdown, with how many examples have the classes 0, 1 and 2."""
    rows = [
        [
            name,
            *(_number(figures, key) for key, _ in _SHOWN),
            f"{figures['n']:,}",
            " / ".join(f"{count:,}" for count in figures.get("n_target", ())) or "none",
        ]
        for name, figures in dimensions.items()
    ]
    return _table(["dimension", *(title for _, title in _SHOWN), "n", "classes 0 / 1 / 2"], rows)


def _front_matter(record: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    # Both are under Apache 2.0; of another base or other data nothing is known here.
    is_known = record["base"] == BASE and record["data"]["source"] == DATA
    data = ModelCardData(
        license=_APACHE if is_known else "other",
        license_name=None if is_known else "that-of-base-and-data",
        base_model=record["base"],
        datasets=[record["data"]["source"]],
        library_name="peft",
        pipeline_tag="image-text-to-text",
        tags=["lora", "image-quality", "judge", "widespectrum"],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _notes(dimensions: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        f"* {name}, {key}: {text}." for name, figures in dimensions.items() for key, text in figures["notes"].items()
    ]
    return "\n".join(["To be held against these figures:", "", *lines] if lines else ["Nothing is undefined."])


def _trained(record: Mapping[str, Any]) -> str:
    counts, source, identity = record["counts"], record["data"], record["identity"]
    at = f" at revision `{source['revision']}`" if source["revision"] else ""
    return (
        f"On {counts['training_examples']:,} examples from {counts['training_images']:,} images of "
        f"`{source['source']}`{at} (sha256 of its images and annotations `{identity['data_sha256']}`), in "
        f"{counts['steps']:,} steps on {record['device']}. An example is an image and a dimension; its target is the "
        "sign of the annotation, plus 1; annotations that say that there is no body, face or hand in the image are "
        "left out. The loss is on the token of the answer alone. LoRA on the attention and feed-forward layers of the "
        "language model; the image tower is left as it is. No checkpoint was chosen by the validation figures: it is "
        "the last one."
    )


def _left_out(record: Mapping[str, Any]) -> str:
    left = record["counts"]["left_out"]
    if not left:
        return "Nothing was left out."
    return "Left out:\n\n" + "\n".join(f"* {count:,} {reason}" for reason, count in left.items())


def card(record: Mapping[str, Any], validation: Mapping[str, Any], title: str) -> str:
    """README.md of the judge, from training.json and validation.json; `title` is the name of its folder."""
    identity, counts = record["identity"], record["counts"]
    pin = identity.get("base_revision") or f"sha256 {identity['base_sha256']}"
    options = [
        [name.replace("_", " "), ", ".join(value) if isinstance(value, list) else f"`{value}`"]
        for name, value in identity.items()
        if name != "data_sha256"
    ]
    template = Template(resources.files(__package__).joinpath("card.md").read_text(encoding="utf-8"))
    return (
        _front_matter(record)
        + "\n"
        + template.substitute(
            title=title,
            use=title if "base_revision" in identity else f"{title},base={record['base']}",
            base_link=f"`{record['base']}` ({pin})",
            validated=(
                f"On {counts['validation_examples']:,} examples from {counts['validation_images']:,} images, "
                f"{validation['rows']} rows of `{validation['data']}`, which were not trained on"
            ),
            intervals=validation["intervals"],
            figures=figure_table(validation["dimensions"]),
            notes=_notes(validation["dimensions"]),
            trained=_trained(record),
            options=_table(["option", "value"], options),
            left_out=_left_out(record),
            packages=", ".join(f"{name} {version}" for name, version in record["packages"].items()),
        )
    )
