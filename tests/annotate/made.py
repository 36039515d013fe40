"""A small run of pictures whose color says what they are, and its study."""

import io

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from widespectrum import runs, store
from widespectrum.annotate.study import open_study
from widespectrum.config import parse_run_file
from widespectrum.types import ImageRecord, Prompt

RUN_FILE = """
[prompts]
set = "photographs"

[[generators]]
name = "identity"
"""

THINGS = ("bridge", "kettle", "spaniel", "orchard", "harbor", "violin", "tractor", "lantern", "glacier", "market")


def png(color, size):
    """An image with a secret beside its pixels."""
    secret = PngInfo()
    secret.add_text("parameters", "SECRET generator")
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, color).save(buffer, "PNG", pnginfo=secret)
    return buffer.getvalue()


def prompts_of(number):
    """p_o and p_a of a pair."""
    thing = f"{THINGS[number % len(THINGS)]} {number}"
    original = Prompt(prompt_id="", text=f"some {thing}", pair_id=f"pair-{number}", role="original")
    # What a page could take for something else than text.
    text = f"some {thing} <b>${{1 + 1}}</b> {{{{value}}}}, drowned in gloom"
    wide = Prompt(
        prompt_id="", text=text, pair_id=f"pair-{number}", role="wide_spectrum", dimensions=("color brightness",)
    )
    return original, wide


def made_run(run, *, pairs=12, generators=("painter",), size=(32, 24), twins=()):
    """A run folder: the original images are light, the others dark; those of `twins` are the same image twice."""
    import hashlib

    prompts = [prompt for number in range(pairs) for prompt in prompts_of(number)]
    config = parse_run_file(RUN_FILE)
    with runs.locked(run):
        runs.open_run(run, config, datasets={}, prompts=prompts)
        for row, generator in enumerate(generators):
            records, payload = [], []
            for number, prompt in enumerate(prompts):
                is_dark = prompt.role == "wide_spectrum" and number // 2 not in twins
                content = png((number // 2, row, 40 if is_dark else 220), size)
                image_id = hashlib.sha256(content).hexdigest()
                records.append(
                    ImageRecord(
                        image_id=image_id,
                        prompt_id=prompt.prompt_id,
                        generator=generator,
                        seed=0,
                        status="ok",
                        detail="",
                        width=size[0],
                        height=size[1],
                        path="",
                    )
                )
                payload.append({"bytes": content, "path": None})
            store.append(run, "images", records, payload)
    return run


def study_of(run, **given):
    """The study of a run, started with these settings."""
    return open_study(run, given)


def answer_all(log, choose=lambda item: item.order):
    """Answer everything that is left; checks as they should be, pairs as `choose` says (default: for the dark one)."""
    known = {"other": lambda item: item.order, "same": lambda item: "tie"}
    for item in log.items[len(log.given) :]:
        log.answer(known.get(item.kind, choose)(item))
    return log
