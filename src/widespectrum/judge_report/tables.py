"""The figures as tables: what each judge did, how sure it was, what it rated, what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from widespectrum.report.headline import Cell, Column, Row, Table
from widespectrum.report.material import Estimate
from widespectrum.tables import format_number

from .cost import Cost
from .figures import Figures, JudgeFigures, estimate

__all__ = [
    "confidence_table",
    "correlation_table",
    "cost_table",
    "dollars",
    "estimate_cell",
    "image_table",
    "judge_table",
    "rating_table",
    "reason_rows",
    "shown",
]

JUDGE_COLUMNS = (
    Column("verdicts", "pairs on which it gave a verdict; one that changes with the order of showing counts as a tie"),
    Column("abstained", "pairs on which it declined to answer; the reasons stand below"),
    Column("not answered", "pairs on which it gave neither a verdict nor a reason; for a rater: pairs not assigned"),
    Column("for I_a", "share of its verdicts for I_a, the image of the wide-spectrum prompt"),
    Column("tie rate", "share of its verdicts that are ties"),
    Column("position bias", "share of pairs whose verdict changes with the order of showing; 0 = blind to the order"),
    Column(
        "then to the first",
        "of pairs turned round, without ties: share that goes to the image shown first; ½ = at random",
    ),
    Column("confidence", "mean probability that it gives its own answers, where it gives one"),
)
COST_COLUMNS = (
    Column("questions", "different questions"),
    Column("requests", "requests sent for them, retries included"),
    Column("faults", "requests whose reply did not fit, refusals included, or that got none"),
    Column("input tokens", "tokens read, as the server counted them"),
    Column("output tokens", "tokens written, as the server counted them"),
    Column("US dollars", "what the server says, or else its tokens at the prices of the run file"),
)
IMAGE_COLUMNS = (
    Column("images", "different images sent"),
    Column("longest side", "no image was sent with a longer side, in pixels"),
    Column("pixels", "smallest, median and largest size sent, width × height"),
    Column("kB", "smallest, median and largest file sent, in 1000 bytes"),
)

_CENTS = 0.0001


def shown(value: float, width: float = 0.0) -> str:
    """A number with as many decimals as an interval of this width allows; a dash for NaN."""
    return "–" if math.isnan(value) else format_number(value, width).replace("-", "−")


def estimate_cell(found: Estimate, absent: str = "–") -> Cell:
    """The estimate with its interval; `absent` where it is undefined."""
    if math.isnan(found.value):
        return Cell(absent)
    if not found.has_interval:
        return Cell(shown(found.value), value=found.value)
    width = found.high - found.low
    interval = f"[{shown(found.low, width)}, {shown(found.high, width)}]"
    return Cell(shown(found.value, width), interval, found.value)


def _count(number: int) -> Cell:
    return Cell(f"{number:,}", value=number)


def _order_cells(judge: JudgeFigures) -> list[Cell]:
    if not judge.order:
        return [Cell("one order each" if judge.is_in_one_order else "–"), Cell("–")]
    return [estimate_cell(estimate(judge.order, name)) for name in ("position_bias_rate", "first_shown_rate")]


def judge_table(figures: Figures) -> Table:
    """One row per judge."""
    rows = [
        Row(
            judge.label,
            [
                Cell(f"{judge.verdicts:,}", f"{judge.ties:,} tie{'s' * (judge.ties != 1)}", judge.verdicts),
                *map(_count, (sum(judge.abstained.values()), judge.missing)),
                *map(estimate_cell, (judge.share_wide, judge.tie_rate)),
                *_order_cells(judge),
                Cell(shown(judge.confidence), value=judge.confidence),
            ],
        )
        for judge in figures.judges
    ]
    title = f"What each judge did with {len(figures.material.pairs):,} image pairs"
    return Table(title, "judge", list(JUDGE_COLUMNS), rows, [])


def reason_rows(figures: Figures) -> list[tuple[str, str, int]]:
    """(judge, reason, pairs) of every abstention on pairs."""
    return [(judge.label, reason, count) for judge in figures.judges for reason, count in judge.abstained.items()]


def confidence_table(figures: Figures) -> Table | None:
    """Agreement with the reference by how sure a judge was; None where no judge says that."""
    judges = [judge for judge in figures.judges if judge.by_confidence]
    if not judges:
        return None
    names = list(dict.fromkeys(part[0] for judge in judges for part in judge.by_confidence))
    rows = []
    for judge in judges:
        parts = {name: (count, share) for name, count, share in judge.by_confidence}
        cells = [_third(*parts[name]) if name in parts else Cell("–") for name in names]
        rows.append(Row(judge.label, cells))
    columns = [Column(name, "share of its verdicts equal to the reference, and of how many") for name in names]
    title = f"Verdicts equal to those of {figures.reference}, by confidence"
    return Table(title, "judge", columns, rows, [])


def _third(count: int, share: float) -> Cell:
    return Cell(shown(share), f"of {count:,}", share)


def rating_table(figures: Figures) -> Table | None:
    """The mean ratings of I_o and I_a; None where no judge rates images."""
    columns = [
        Column("pairs", "pairs with ratings of both images"),
        Column("scale", "ratings go from 0 to this"),
        Column("I_o", "mean rating of the image of the plain caption"),
        Column("I_a", "mean rating of the image of the wide-spectrum prompt"),
        Column("I_a − I_o", "mean difference, pair by pair"),
    ]
    rows = [
        Row(
            f"{each.dimension}, {each.judge}",
            [_count(each.n), _count(each.scale), *map(estimate_cell, (each.original, each.wide, each.difference))],
        )
        for each in figures.ratings
    ]
    return Table("Mean ratings", "dimension, judge", columns, rows, []) if rows else None


def correlation_table(figures: Figures) -> Table | None:
    """How far two judges rank images alike; None where no two rate the same."""
    columns = [
        Column("images", "images that both rated"),
        Column("Spearman", "rank correlation of the two ratings; 1 = the same order, 0 = no relation"),
    ]
    rows = [
        Row(
            f"{each.dimension}: {each.judge} – {each.other}",
            [_count(each.values["n_rows"]), estimate_cell(estimate(each.values, "rho"), _undefined(each.values))],
        )
        for each in figures.correlations
    ]
    return Table("Two judges on the same dimension", "dimension: judges", columns, rows, []) if rows else None


def _undefined(values: Mapping[str, Mapping[str, str]]) -> str:
    return values["notes"].get("rho", "–")


def dollars(cost: Cost) -> str:
    """What is known of the cost, and that it is not all where it is not."""
    if cost.unpriced and not cost.dollars:
        return "not known"
    if 0 < cost.dollars < _CENTS:
        return f"under {_CENTS}"
    text = f"{cost.dollars:,.2f}" if cost.dollars >= 1 or cost.dollars == 0 else f"{cost.dollars:.2g}"
    return f"over {text}" if cost.unpriced else text


def _tokens(cost: Cost, count: int) -> Cell:
    if cost.uncounted and cost.uncounted == cost.replies:
        return Cell("not known")
    return Cell(f"{'over ' if cost.uncounted else ''}{count:,}", value=count)


def cost_table(costs: Sequence[Cost]) -> Table | None:
    """What each journal says was sent and paid; None without journals."""
    rows = []
    for cost in costs:
        faults = f"{cost.bad:,} unfit, {cost.errors:,} without reply" if cost.bad + cost.errors else ""
        paid = f"not known of {cost.unpriced:,} replies" if cost.unpriced and cost.dollars else ""
        cells = [
            *map(_count, (cost.questions, cost.requests)),
            Cell(f"{cost.bad + cost.errors:,}", faults, cost.bad + cost.errors),
            *(_tokens(cost, count) for count in (cost.input_tokens, cost.output_tokens)),
            Cell(dollars(cost), paid, math.nan if cost.unpriced and not cost.dollars else cost.dollars),
        ]
        rows.append(Row(cost.judge, cells))
    return Table("Requests and what they cost", "judge", list(COST_COLUMNS), rows, []) if rows else None


def image_table(costs: Sequence[Cost]) -> Table | None:
    """How large the images were that were sent; None where there were none."""
    rows = []
    for cost in costs:
        if cost.images:
            sent = list(cost.images.values())
            sizes = sorted(sent, key=lambda image: image.width * image.height)
            files = sorted(image.bytes for image in sent)
            limits = ", ".join(f"{limit:,}" for limit in sorted(cost.limits)) or "not recorded"
            spread = [f"{sizes[k].width}×{sizes[k].height}" for k in _spread(len(sizes))]
            kilobytes = [f"{files[k] / 1000:,.1f}" for k in _spread(len(files))]
            cells = [_count(len(sent)), Cell(limits), Cell(" · ".join(spread)), Cell(" · ".join(kilobytes))]
            rows.append(Row(cost.judge, cells))
    return Table("Images as they were sent", "judge", list(IMAGE_COLUMNS), rows, []) if rows else None


def _spread(count: int) -> tuple[int, int, int]:
    """The places of the smallest, the median (of two the lower) and the largest."""
    return 0, (count - 1) // 2, count - 1
