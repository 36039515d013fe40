"""The ranking under test, and small finished runs for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from widespectrum import store
from widespectrum.config import parse_run_file
from widespectrum.published import load_module
from widespectrum.results import evaluate
from widespectrum.types import ImageRecord, Prompt, Score, Verdict

Pair = tuple[Prompt, Prompt]
Answer = float | str | None
"""A verdict, None where the judge abstained, "refused" or "failed"."""

CAPTIONS = {f"pair {i}": f"a bus, number {i}" for i in range(20)}
JUDGES = {"rule": "rule:rule@v1", "pixel": "pixel:pixel@v1"}


@pytest.fixture(scope="session")
def rank() -> Callable[..., pa.Table]:
    """`rank` loaded by path, as the command line does."""
    return load_module(Path(__file__).resolve().parents[2] / "leaderboard" / "rank.py").rank


def sha(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def write_prompts(folder: Path, captions: Mapping[str, str]) -> list[Pair]:
    pairs = []
    for pair_id, caption in captions.items():
        names = {"prompt_id": "", "pair_id": pair_id}
        wide = Prompt(**names, text="dark", role="wide_spectrum", dimensions=("clarity",))
        pairs.append((Prompt(**names, text=caption, role="original"), wide))
    store.append(folder, "prompts", [prompt for pair in pairs for prompt in pair])
    return pairs


def write_images(folder: Path, asked: Sequence[tuple[Pair, Answer]], generator: str, judge: str) -> None:
    images, verdicts = [], []
    for pair, answer in asked:
        if answer == "failed":
            continue
        refused = answer == "refused"
        about = {"generator": generator, "seed": 0, "width": 1, "height": 1, "path": ""}
        about |= {"status": "refused", "detail": "no"} if refused else {"status": "ok", "detail": ""}
        ids = ["" if refused else sha(generator, prompt.prompt_id) for prompt in pair]
        images += [
            ImageRecord(image_id=image, prompt_id=prompt.prompt_id, **about)
            for prompt, image in zip(pair, ids, strict=True)
        ]
        if isinstance(answer, float):
            question = {"prompt_id": pair[1].prompt_id, "image_id": ids[1], "rival_id": ids[0], "dimension": "overall"}
            verdicts.append(Verdict(**question, judge=judge, outcome=answer, order="both", rationale=""))
    store.append(folder, "images", images, [None] * len(images))
    store.append(folder, "verdicts", verdicts)


def scores(pair: Pair, generator: str, model: str, right: float) -> list[Score]:
    """The four scores of an image pair: right under both prompts, or blind to them."""
    return [
        Score(
            pair_id=prompt.pair_id,
            generator=generator,
            image_seed=0,
            image_role=image.role,
            prompt_role=prompt.role,
            image_id=sha(generator, image.prompt_id),
            prompt_id=prompt.prompt_id,
            reward_model=model,
            value=right * (image is prompt),
            truncated=None,
        )
        for prompt in pair
        for image in pair
    ]


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """`write_run(folder, verdicts, right, ...)` makes a finished and evaluated run, judged by its first judge.

    `verdicts` are by generator, `right` by (reward model, generator): one per pair, in the order of `captions`, which
    maps pairs to their plain captions.
    `evaluation` changes what its results are said to rest on, `changes` are made to the manifest.
    """

    def write(
        folder: Path,
        verdicts: Mapping[str, Sequence[Answer]],
        right: Mapping[tuple[str, str], Sequence[float]] | None = None,
        *,
        captions: Mapping[str, str] = CAPTIONS,
        options: str = "",
        evaluation: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        # nothing is evaluated without scores
        right = right or {("taste", next(iter(verdicts))): [1.0] * len(captions)}
        specs = {
            "generators": {name: f"folder:{name}@v1" for name in verdicts},
            "reward_models": {name: f"weightless:{name}@v1" for name, _ in right},
            "judges": JUDGES,
            **changes.pop("specs", {}),
        }
        manifest = {
            "schema_version": 4,
            "benchmark_version": "0.1.0",
            "datasets": {"prompts": "v1"},
            "specs": specs,
            "functional_digest": "",
            "packages": {},
            "git_commit": None,
            "dirty": None,
            "seed": 0,
            "created": "2026-01-01T00:00:00+00:00",
            "status": "complete",
            **changes,
        }
        pairs = write_prompts(folder, captions)
        for generator, answers in verdicts.items():
            write_images(folder, list(zip(pairs, answers, strict=True)), generator, next(iter(specs["judges"])))
        for (model, generator), flags in right.items():
            made = zip(pairs, flags, strict=True)
            store.append(folder, "scores", [row for pair, flag in made for row in scores(pair, generator, model, flag)])
        text = f"[evaluate]\nn_resamples = 20\n{options}\n"
        (folder / "run.toml").write_text(text, encoding="utf-8")
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        evaluate(folder, parse_run_file(text))
        path = folder / "results" / "evaluation.json"
        rests_on = json.loads(path.read_text(encoding="utf-8")) | dict(evaluation or {})
        path.write_text(json.dumps(rests_on), encoding="utf-8")
        return folder

    return write
