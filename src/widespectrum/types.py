"""The records that travel between stages, with their invariants. Standard library only.

Tables hold the same fields as columns; their Arrow schemas are in `widespectrum.store`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from .errors import InputError
from .specs import ModelSpec, Parameter, canonical_json, digest

__all__ = [
    "DIMENSIONS",
    "OPTIONAL_DIMENSIONS",
    "AbstentionRecord",
    "Call",
    "CallStatus",
    "ImageRecord",
    "ImageStatus",
    "MetricResult",
    "ModelSpec",
    "Order",
    "Parameter",
    "Prompt",
    "Role",
    "RunManifest",
    "RunStatus",
    "Score",
    "Submission",
    "Verdict",
    "canonical_json",
    "digest",
    "prompt_id",
]

Role: TypeAlias = Literal["original", "wide_spectrum"]
ImageStatus: TypeAlias = Literal["ok", "refused"]
CallStatus: TypeAlias = Literal["ok", "refused", "failed"]
Order: TypeAlias = Literal["first", "second", "both"]
RunStatus: TypeAlias = Literal["started", "complete"]

DIMENSIONS = (
    "background",
    "clarity",
    "color aesthetic",
    "color brightness",
    "detail realism",
    "detail refinement",
    "emotion",
    "lighting distinction",
    "main object",
    "object pairing",
    "richness",
)
"""The eleven dimensions of the benchmark, in alphabetical order."""

OPTIONAL_DIMENSIONS = ("lighting aesthetic", "symmetry")

_SHA256 = re.compile(r"[0-9a-f]{64}")


def prompt_id(pair_id: str, role: Role, text: str, dimensions: tuple[str, ...] = ()) -> str:
    """The id of a prompt, 16 hex digits; another text, role or dimension gives another id."""
    return digest([pair_id, role, text, list(dimensions)])[:16]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _require_choice(name: str, value: object, choices: object) -> None:
    allowed = get_args(choices)
    _require(value in allowed, f"{name} must be one of {', '.join(allowed)}; got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt of a pair. `role` original is the plain caption and has no dimensions.

    `effects` are the words of the text that ask for each of `dimensions`, in their order; empty where nobody says.
    `negative_prompt` names in few words what to avoid, for generators that take such a text; an original has none.
    """

    prompt_id: str
    text: str
    pair_id: str
    role: Role
    dimensions: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    subset: str = ""
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        where = f"prompt of pair {self.pair_id!r}"
        _require_choice(f"{where}: role", self.role, Role)
        _require(bool(self.pair_id), "a prompt needs a pair_id; got an empty one")
        _require(bool(self.text.strip()), f"{where}: the text is empty")
        _require(self.text == self.text.strip(), f"{where}: the text starts or ends with a blank; strip it")
        _require(unicodedata.is_normalized("NFC", self.text), f"{where}: the text must be Unicode NFC")
        _require(
            (self.role == "original") == (not self.dimensions),
            f"{where}: an original prompt has no dimensions and a wide_spectrum prompt at least one; "
            f"got role {self.role!r} with {list(self.dimensions)}",
        )
        known = DIMENSIONS + OPTIONAL_DIMENSIONS
        for name in self.dimensions:
            _require(name in known, f"{where}: unknown dimension {name!r}; expected one of {', '.join(known)}")
        _require(len(set(self.dimensions)) == len(self.dimensions), f"{where}: a dimension is named twice")
        _require(
            not self.effects or len(self.effects) == len(self.dimensions),
            f"{where}: expected the words of {len(self.dimensions)} effects, as many as dimensions; "
            f"got {len(self.effects)}",
        )
        _require(
            not self.negative_prompt or self.role == "wide_spectrum",
            f"{where}: an original prompt has no negative_prompt; got {self.negative_prompt!r}",
        )
        expected = prompt_id(self.pair_id, self.role, self.text, self.dimensions)
        _require(
            self.prompt_id in (expected, "") or self.prompt_id.startswith("external:"),
            f"{where}: the prompt_id {self.prompt_id!r} does not belong to this text; expected {expected!r}",
        )
        object.__setattr__(self, "prompt_id", self.prompt_id or expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image that a generator made, or its recorded refusal to make it.

    `image_id` is the sha256 of the encoded bytes; `generator` is the label under which the manifest holds its spec.
    `seed` is that of the run; `noise_seed` the one that follows from it for this pair and with which the image was
    drawn, None where the generator takes none.
    """

    image_id: str
    prompt_id: str
    generator: str
    seed: int
    status: ImageStatus
    detail: str
    width: int
    height: int
    path: str
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        where = f"image of prompt {self.prompt_id!r} by {self.generator!r}"
        _require_choice(f"{where}: status", self.status, ImageStatus)
        if self.status == "ok":
            is_hash = bool(_SHA256.fullmatch(self.image_id))
            _require(is_hash, f"{where}: image_id must be a sha256; got {self.image_id!r}")
            has_size = self.width > 0 and self.height > 0
            _require(has_size, f"{where}: an image needs a size; got {self.width}x{self.height}")
        else:
            _require(not self.image_id and not self.path, f"{where}: a refusal has no image")
            _require(bool(self.detail), f"{where}: a refusal needs its reason in 'detail'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the API of a generator, whatever came of it: what was paid, and by which id it can be found.

    `code` is the HTTP status (None: no response came), `request_id` the vendor's, `model` what the vendor says
    answered, `cost` in US dollars (None: unknown), `detail` the reason of a refusal or failure, `time` when it was sent
    (ISO 8601).
    """

    call_id: str
    prompt_id: str
    generator: str
    seed: int
    attempt: int
    status: CallStatus
    code: int | None
    request_id: str
    model: str
    cost: float | None
    seconds: float
    detail: str
    time: str

    def __post_init__(self) -> None:
        where = f"call {self.call_id!r} for prompt {self.prompt_id!r}"
        _require_choice(f"{where}: status", self.status, CallStatus)
        _require(bool(self.call_id), "a call needs an id; got an empty one")
        _require(
            self.status == "ok" or bool(self.detail), f"{where}: a refusal or failure needs its reason in 'detail'"
        )
        _require(self.cost is None or 0 <= self.cost < math.inf, f"{where}: cost must be 0 or more; got {self.cost}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The reward of one image under one prompt; higher is better, on the reward model's own scale.

    `truncated` says whether the prompt was too long for the reward model's text encoder, and `past_window` which of its
    dimensions are asked for in words that were cut off, as far as the prompt says which words these are; `special`
    says whether the tokenizer read a part of the prompt as a special token. None where nobody knows.
    """

    pair_id: str
    generator: str
    image_seed: int
    image_role: Role
    prompt_role: Role
    image_id: str
    prompt_id: str
    reward_model: str
    value: float
    truncated: bool | None
    past_window: tuple[str, ...] = ()
    special: bool | None = None

    def __post_init__(self) -> None:
        _require_choice("image_role", self.image_role, Role)
        _require_choice("prompt_role", self.prompt_role, Role)
        _require(
            math.isfinite(self.value),
            f"score of {self.reward_model!r} on pair {self.pair_id!r} must be finite; got {self.value}. "
            "Leave out what cannot be scored",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judge's answer about one image, alone or beside a rival.

    `dimension` says what was asked: `overall` (which image fits the prompt better), `effects`, `main concept`,
    `content` (how well image and prompt match), `expressed emotion`, or one of the dimensions. `outcome` is in [0, 1]:
    1 = `image_id` wins against `rival_id`, 0.5 = tie, 0 = the rival wins; for an image alone it is the rating as a
    share of its scale (J / 2, effects / 100). With a rival there are three rows: `order` first and second (which image
    was shown first) and their aggregate `both`; a person sees one order, so that there are two.

    `rationale` is the reason, `raw` what a model replied, as it came, `details` what else was recorded, a JSON object
    (`effects` and how far each shows, `face` that was found), `confidence` the probability that the judge gives its
    own answer; empty or None where there is none.
    """

    prompt_id: str
    image_id: str
    rival_id: str
    dimension: str
    judge: str
    outcome: float
    order: Order
    rationale: str
    raw: str = ""
    details: str = ""
    confidence: float | None = None

    def __post_init__(self) -> None:
        _require_choice("order", self.order, Order)
        _require(
            0.0 <= self.outcome <= 1.0,
            f"verdict of {self.judge!r} on prompt {self.prompt_id!r}: outcome must be in [0, 1]; got {self.outcome}",
        )
        _require(
            not self.rival_id or self.outcome in (0.0, 0.5, 1.0),
            f"verdict of {self.judge!r} on prompt {self.prompt_id!r}: against a rival the outcome is 0, 0.5 or 1; "
            f"got {self.outcome}",
        )
        _require(
            self.confidence is None or 0.0 <= self.confidence <= 1.0,
            f"verdict of {self.judge!r} on prompt {self.prompt_id!r}: confidence must be in [0, 1]; "
            f"got {self.confidence}",
        )
        _require(
            bool(self.rival_id) or self.order == "both",
            f"verdict of {self.judge!r}: an image without a rival has order 'both'; got {self.order!r}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AbstentionRecord:
    """A question that a judge could not answer, with its reason: no verdict, and not asked again.

    `raw` is what a model replied instead, as it came.
    """

    prompt_id: str
    image_id: str
    rival_id: str
    dimension: str
    judge: str
    reason: str
    raw: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.reason), f"{self.judge!r} abstained on prompt {self.prompt_id!r} without a reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One estimate with its interval. `n` counts prompt pairs; a missing interval is NaN at both ends."""

    metric: str
    model: str
    value: float
    ci_low: float
    ci_high: float
    level: float
    n: int
    subset: str
    tie_group: int | None = None

    def __post_init__(self) -> None:
        where = f"{self.metric} of {self.model!r}"
        _require(math.isfinite(self.value), f"{where} must be finite; got {self.value}. Leave out what is undefined")
        _require(0.0 < self.level < 1.0, f"{where}: level must be between 0 and 1; got {self.level}")
        _require(self.n > 0, f"{where}: n must be positive; got {self.n}")
        if math.isnan(self.ci_low) and math.isnan(self.ci_high):
            return
        _require(
            self.ci_low <= self.value <= self.ci_high,
            f"{where}: expected ci_low <= value <= ci_high; got {self.ci_low}, {self.value}, {self.ci_high}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunManifest:
    """What made a run: written first as `started`, last as `complete`. Nothing of it enters a key."""

    schema_version: int
    benchmark_version: str
    datasets: Mapping[str, str]
    specs: Mapping[str, Mapping[str, str]]
    functional_digest: str
    packages: Mapping[str, str]
    git_commit: str | None
    dirty: bool | None
    seed: int
    created: str
    status: RunStatus

    def __post_init__(self) -> None:
        _require_choice("status", self.status, RunStatus)
        for name in ("datasets", "specs", "packages"):
            _require(isinstance(getattr(self, name), Mapping), f"the manifest's {name} must be a table of names")
        for kind, table in self.specs.items():
            _require(isinstance(table, Mapping), f"the manifest's {kind} must be a table of names")
            for label, text in table.items():
                _require(bool(label), f"the manifest holds a {kind} without a label: {text!r}")
                ModelSpec.parse(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A run offered to the leaderboard; `tables` are paths inside the submission, relative to its root."""

    manifest: RunManifest
    tables: tuple[str, ...]
    model_name: str
    model_url: str
    license: str
    contact: str

    def __post_init__(self) -> None:
        for name in ("model_name", "license", "contact"):
            _require(bool(getattr(self, name).strip()), f"a submission needs a {name}; got an empty one")
        for table in self.tables:
            parts = table.split("/")
            _require(
                ".." not in parts and not table.startswith("/") and "\\" not in table and ":" not in table,
                f"a submission's table must lie inside the submission; got {table!r}",
            )
