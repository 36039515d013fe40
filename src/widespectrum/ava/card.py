"""What the card of `ava_anti_aesthetic` says about a build: provenance and tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from widespectrum.publishing import Provenance, Source, markdown_table
from widespectrum.publishing.image_configs import REJECTED, stated_rights
from widespectrum.publishing.images import Packed

from .pack import Material, element_counts, left_out, reason_counts

__all__ = ["LICENSE_REASON", "card_values", "provenance"]

LICENSE_REASON = (
    "ids and votes come from AVA, whose photographs belong to their photographers and whose release asks users to "
    "refrain from redistributing images or data; elements and captions are ours, under CC BY 4.0"
)
_ATTACHED = "photographs of AVA; the rights are retained by their photographers and DPChallenge"
_UPSTREAM = "AVA: research data without a license of its own"


def _sources(material: Material) -> tuple[Source, ...]:
    found = []
    if read := material.stages.get("read"):
        found += [
            Source(name=name, license=_UPSTREAM, sha256=sha) for name, sha in read.inputs.items() if sha is not None
        ]
    inputs = material.stages["select"].inputs
    if recorded := inputs.get("recorded outcome"):
        found.append(Source(name="the authors' recorded selection", license="none stated", sha256=recorded))
    elif inputs["queries_sha256"]:
        kind = inputs["queries_from"]
        stated = "none stated" if kind == "the authors' table" else "the user's own"
        found.append(Source(name=f"queries from {kind}", license=stated, sha256=inputs["queries_sha256"]))
    return tuple(found)


def _options(material: Material, config: str) -> dict[str, Any]:
    inputs = material.stages["select"].inputs
    options = {"queries": inputs.get("queries_from", "none: recorded selection"), "cap": inputs.get("cap")}
    if config != "selection" and (recaption := material.stages.get("recaption")):
        options |= {
            "captions by": recaption.inputs["vlm"].rpartition("@")[0],
            "caption prompt": recaption.inputs["prompt"],
        }
    if config == "counterparts":
        options |= {"seed of the counterparts": material.stages["counterpart"].inputs["seed"]}
    return options


def _models(material: Material, config: str) -> dict[str, str]:
    models = {}
    if model := material.stages["select"].inputs.get("model"):
        models["embeddings"] = model
    if config == "counterparts":
        models["clean counterparts"] = material.stages["counterpart"].inputs["generator"]
    return models


def _rights(material: Material, config: str, with_images: bool, rights: str) -> dict[str, str]:
    stated = stated_rights(rights, _ATTACHED)
    if config == "photographs" and with_images:
        return {"photographs": stated}
    if config != "counterparts":
        return {}
    inputs = material.stages["counterpart"].inputs
    if inputs["starts from photographs"]:
        return {"counterparts": f"{stated}; {inputs['label']} made these images from them"}
    return {"counterparts": f"clear: generated from captions by {inputs['generator']}"}


def provenance(material: Material, config: str, *, with_images: bool, rights: str = "") -> Provenance:
    """How a config was made, and under which terms; `rights`: what the user states of the photographs."""
    return Provenance(
        license="other",
        license_reason=LICENSE_REASON,
        sources=_sources(material),
        options=_options(material, config),
        models=_models(material, config),
        image_rights=_rights(material, config, with_images, rights),
    )


def _vote_line(rows: list[dict[str, Any]]) -> str:
    means = [row["vote_mean"] for row in rows if row["vote_mean"] is not None]
    if not means:
        return "The votes are not part of this build."
    spreads = [row["vote_sd"] for row in rows if row["vote_sd"] is not None]
    return (
        f"Votes of the split `test`: the means average {statistics.fmean(means):.2f} (from {min(means):.2f} to "
        f"{max(means):.2f} on the scale 1 to 10), "
        f"the standard deviations within a photograph {statistics.fmean(spreads):.2f}."
    )


def _query_table(material: Material) -> str:
    header = ["query", "element", "threshold", "negative", "over the cap", "kept"]
    rows = [
        [
            row["query"],
            row["element"] or "–",
            "–" if row["threshold"] is None else f"{row['threshold']:.3f}",
            *("–" if row[name] is None else f"{row[name]:,}" for name in ("negative", "over_cap", "kept")),
        ]
        for row in material.counts
    ]
    return markdown_table(header, rows)


def _counterparts(material: Material) -> str:
    stage = material.stages.get("counterpart")
    if stage is None or stage.summary is None:
        return "There are no counterparts in this build."
    said = ", ".join(
        f"{name} {n:,}" for name, n in stage.summary.items() if name != "photographs that could not be opened"
    )
    skipped = f"; {n:,} photographs could not be opened" if (n := left_out(stage)) else ""
    return f"Made by `{stage.inputs['label']}`: {said}{skipped}."


def _attached(packed: Mapping[str, Packed] | None, rights: str) -> str:
    if packed is None:
        return "They are not part of this dataset."
    kept, left = sum(each.rows for each in packed.values()), sum(len(each.rejected) for each in packed.values())
    return (
        f"This build holds photographs: {kept:,} of {kept + left:,} were attached; the rows of the others, which are "
        f"missing or damaged in the copy of AVA that was used, are left out and listed in `photographs/{REJECTED}`. "
        + (f"Their rights, as stated: {rights.strip()}." if rights.strip() else "It must not be passed on.")
    )


def card_values(material: Material, packed: Mapping[str, Packed] | None, rights: str = "") -> dict[str, str]:
    """The placeholders of the card. `packed`: by split, the photographs that were attached, None where none were."""
    test = material.photographs["test"]
    elements = [
        [name, f"{selected:,}", f"{carried:,}"] for name, selected, carried in element_counts(material.photographs)
    ]
    return {
        "test_rows": f"{len(test):,}",
        "outcome_table": markdown_table(["outcome", "photographs"], reason_counts(material.photographs)),
        "element_table": markdown_table(["element", "selected for it", "carry it in `test`"], elements),
        "query_table": _query_table(material),
        "votes": _vote_line(test),
        "attached": _attached(packed, rights),
        "counterparts": _counterparts(material),
    }
