"""The self-test of a generator: both prompts of one pair, drawn twice."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from .config import ModelChoice
from .errors import InputError, ModelError
from .generation import is_neural, is_paid
from .generators import GENERATORS, load_generator
from .images import encode
from .prompts import load_prompt_set, open_photograph
from .protocols import Failure, Generator, Refusal
from .types import Prompt

__all__ = ["check_generator"]

Say = Callable[[str], None]

STEPS = 4
"""So many steps are drawn at most, unless the user says how many: enough to see that all works, and repeats itself."""


def check_generator(choice: ModelChoice, say: Say) -> None:
    """Draw two prompts twice and say settings, sizes, hashes, time, memory, and whether both times gave the same.

    An API that takes no seed is asked once only. InputError or ModelError where something fails or does not repeat.
    """
    fewer = _fewer_steps(choice)
    generator = load_generator(choice.name, **choice.arguments, **fewer)
    prompts, images = _material(generator)
    if is_neural(generator):
        generator.check(prompts)
    say(choice.label)
    _say_settings(generator, say)
    for option, value in fewer.items():
        usual = GENERATORS[choice.name].defaults[option]
        say(f"  drawn in {value} steps to be quick; in all {usual}: --check {_with(choice, option)}")
    _say_price(generator, say)
    if is_neural(generator):
        started = time.monotonic()
        generator.open()
        device = getattr(generator, "device", "")
        say(f"  opened in {time.monotonic() - started:.1f} s{f' on {device}' if device else ''}")
    first = _draw(generator, prompts, images, say)
    _compare(generator, prompts, images, first, say)
    if is_neural(generator):
        say(f"  peak memory {generator.peak_memory() / 1e9:.2f} GB")
        # The next one may need all of it, and has a peak of its own.
        generator.close()


def _fewer_steps(choice: ModelChoice) -> dict[str, Any]:
    """{"steps": 4} where the generator would draw more and the user does not say how many.

    An edit draws the share `strength` of its steps.
    """
    entry = GENERATORS.get(choice.name)
    usual = entry.defaults.get("steps", 0) if entry else 0
    share: Any = choice.options.get("strength", 1)
    is_share = isinstance(share, int | float) and 0 < share <= 1
    steps = math.ceil(STEPS / share) if is_share else STEPS
    return {"steps": steps} if usual > steps and "steps" not in choice.options else {}


def _with(choice: ModelChoice, option: str) -> str:
    """The generator with its usual value of an option, as the command line takes it."""
    given = {**choice.options, option: GENERATORS[choice.name].defaults[option]}
    return f'"{choice.name}[{",".join(f"{key}={value}" for key, value in given.items())}]"'


def _material(generator: Generator) -> tuple[list[Prompt], list[Image] | None]:
    """Both prompts of one pair, and the photograph that belongs to them where the generator starts from one."""
    chosen = load_prompt_set("photographs" if generator.needs_images else "authored")
    # What classical effects cannot show either is asked for by some pairs, but not by this one.
    pair_id = next(prompt.pair_id for prompt in chosen.prompts if "clarity" in prompt.dimensions)
    pair = [prompt for prompt in chosen.prompts if prompt.pair_id == pair_id]
    if not generator.needs_images:
        return pair, None
    return pair, [open_photograph(chosen.photographs[prompt.pair_id]) for prompt in pair]


def _say_settings(generator: Generator, say: Say) -> None:
    """Everything that identifies the images."""
    spec = generator.spec
    for option, value in sorted({**spec.params, "revision": spec.revision or ""}.items()):
        if value != "":
            say(f"  {option:<18} {value}")
    say(f"  {'spec':<18} {spec.key[:16]}")


def _say_price(generator: Generator, say: Say) -> None:
    if is_paid(generator):
        calls = 4 if _takes_seeds(generator) else 2
        price = "at an unknown price" if generator.price is None else f"about ${calls * generator.price:.2f}"
        say(f"  {calls} API calls, {price}")


def _takes_seeds(generator: Generator) -> bool:
    return not is_paid(generator) or hasattr(generator, "noise_seed")


def _draw(generator: Generator, prompts: Sequence[Prompt], images: list[Image] | None, say: Say) -> list[Image]:
    """The images of both prompts, each drawn for itself and timed."""
    drawn: list[Image] = []
    for row, prompt in enumerate(prompts):
        started = time.monotonic()
        answer = generator.generate([prompt], seeds=[0], images=images[row : row + 1] if images else None)[0]
        seconds = time.monotonic() - started
        if isinstance(answer, Refusal):
            raise ModelError(f"{generator.spec.name} refused {prompt.text!r}: {answer.reason}")
        if isinstance(answer, Failure):
            kind = InputError if answer.cause == "input" else ModelError
            raise kind(f"{generator.spec.name} did not draw {prompt.text!r}: {answer.reason}")
        image_id, _ = encode(answer)
        say(f"  {prompt.role:<18} {answer.width} x {answer.height}, sha256 {image_id[:16]}, {seconds:.1f} s")
        say(f"  {'':<18} {textwrap.shorten(prompt.text, 90, placeholder=' ...')}")
        drawn.append(answer)
    return drawn


def _compare(
    generator: Generator, prompts: Sequence[Prompt], images: list[Image] | None, first: list[Image], say: Say
) -> None:
    if not _takes_seeds(generator):
        say("  drawn once: this API takes no seed")
        return
    second = _draw(generator, prompts, images, lambda line: None)
    for prompt, one, other in zip(prompts, first, second, strict=True):
        away = _difference(one, other)
        if away:
            raise ModelError(
                f"{generator.spec.name} does not repeat itself under the {prompt.role} prompt: drawn twice from one "
                f"seed, its pixels differ by up to {away} of 255"
            )
    say("  drawn twice: the same pixels")


def _difference(one: Image, other: Image) -> int:
    """The largest difference of two images, in levels; 255 where they differ in size or kind."""
    if (one.size, one.mode) != (other.size, other.mode):
        return 255
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())
