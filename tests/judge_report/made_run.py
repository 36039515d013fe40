"""A run whose judges are known: who is right how often is decided here, not by models."""

import io
import itertools
import json
from hashlib import sha256

import numpy as np
import PIL.Image

from widespectrum import runs, store
from widespectrum.config import parse_run_file
from widespectrum.types import AbstentionRecord, ImageRecord, ModelSpec, Prompt, Verdict

HOSTILE = '<script>alert("x")</script> & <b>bold</b>'
CAPTIONS = [f"a street in the rain, number {k}" for k in range(1, 20)] + [f"{HOSTILE} a cat"]
GENERATORS = ("plain-generator", "wild-generator[strength=2]")
DIMENSIONS = (("clarity",), ("lighting distinction", "clarity"), ("color aesthetic",))
RUN_FILE = """
[run]
seeds = [0]

[prompts]
set = "photographs"

[[generators]]
name = "identity"

[[judges]]
name = "vlm"
label = "honest"
model = "made/honest-8b"
input_price = 1.0
output_price = 10.0

[evaluate]
n_resamples = 200
"""
HONEST, FLIPS, FIRST, MAJORITY = "honest", "flips", "always-first", "majority"
ONE, TWO = "human:k7", "human:m2"
REFUSED = f"the model declined: {HOSTILE}"


def prompts():
    for k, caption in enumerate(CAPTIONS):
        for twin in "ab":  # two prompt pairs share each plain caption, and are one cluster
            pair = f"{k:02d}{twin}"
            yield Prompt(prompt_id="", text=caption, pair_id=pair, role="original")
            text = f"{caption}, {'blurred' if twin == 'a' else 'far too dark'}"
            yield Prompt(
                prompt_id="", text=text, pair_id=pair, role="wide_spectrum", dimensions=DIMENSIONS[k % len(DIMENSIONS)]
            )


def _picture(rng):
    """A small picture as PNG: a few soft shapes on a tinted ground."""
    y, x = np.mgrid[0:54, 0:72]
    pixels = np.full((54, 72, 3), rng.integers(20, 236, 3), dtype=np.float64)
    for _ in range(4):
        cy, cx, size = rng.integers(0, 54), rng.integers(0, 72), rng.integers(4, 16)
        pixels[(y - cy) ** 2 + (x - cx) ** 2 < size**2] = rng.integers(0, 256, 3)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _images(run, every, rng):
    """One image per prompt and generator; their ids by (generator, prompt_id)."""
    rows, payload, ids = [], [], {}
    for generator, prompt in itertools.product(GENERATORS, every):
        content = _picture(rng)
        ids[generator, prompt.prompt_id] = image_id = sha256(content).hexdigest()
        names = {"prompt_id": prompt.prompt_id, "generator": generator, "seed": 0, "status": "ok", "detail": ""}
        rows.append(ImageRecord(image_id=image_id, **names, width=72, height=54, path=f"{image_id}.png"))
        payload.append({"bytes": content, "path": f"{image_id}.png"})
    store.append(run, "images", rows, payload)
    return ids


def questions(every, ids):
    """(prompt_id of p_a, image_id of I_a, image_id of I_o) of every pair."""
    by_pair = {}
    for prompt in every:
        by_pair.setdefault(prompt.pair_id, {})[prompt.role] = prompt.prompt_id
    for generator, pair in itertools.product(GENERATORS, by_pair.values()):
        wide, original = pair["wide_spectrum"], pair["original"]
        yield wide, ids[generator, wide], ids[generator, original]


def verdict(key, judge, order, outcome, **more):
    prompt, image, rival = key
    more = {"dimension": "overall", "rationale": "", **more}
    return Verdict(
        prompt_id=prompt, image_id=image, rival_id=rival, judge=judge, order=order, outcome=float(outcome), **more
    )


def in_both_orders(key, judge, first, second, **more):
    both = first if first == second else 0.5
    reason = f"{judge} says: {HOSTILE}"
    for order, outcome in (("first", first), ("second", second)):
        raw = json.dumps({"answer": outcome, "said": HOSTILE})
        yield verdict(key, judge, order, outcome, rationale=f"{reason} ({order})", raw=raw, **more)
    yield verdict(key, judge, "both", both, rationale=reason)


def _of_models(keys, truth, rng):
    flipped = rng.permutation(len(keys)) < len(keys) // 10
    for k, key in enumerate(keys):
        yield from in_both_orders(key, HONEST, truth[k], truth[k], confidence=float(rng.uniform(0.5, 1)))
        if k != 3:  # the one on which it abstains
            turned = 1 - truth[k] if flipped[k] else truth[k]
            yield from in_both_orders(key, FLIPS, turned, turned)
        yield from in_both_orders(key, FIRST, 1, 0)
        yield from in_both_orders(key, MAJORITY, truth[k], truth[k])


def _of_people(keys, truth, rng):
    """Each rater sees most pairs, once, in one order; together they say what both say, or else tie."""
    for k, key in enumerate(keys):
        said = {}
        for rater in (ONE, TWO):
            if rng.random() < 0.7:
                said[rater] = truth[k] if rng.random() < 0.8 else rng.choice([0, 0.5, 1])
                order = ("first", "second")[rng.integers(2)]
                yield verdict(key, rater, order, said[rater])
                yield verdict(key, rater, "both", said[rater])
        if len(said) == 2:
            outcome = said[ONE] if said[ONE] == said[TWO] else 0.5
            yield verdict(key, "people", "both", outcome, rationale=f"{len(said)} answered")


def _ratings(keys, rng):
    for prompt, image, rival in keys:
        for shown, level in ((image, 0.3), (rival, 0.7)):
            share = round(float(np.clip(level + rng.normal(0, 0.15), 0, 1)), 2)
            noisy = float(np.clip(share + rng.normal(0, 0.2), 0, 1))
            alone = {"order": "both", "dimension": "main concept"}
            yield verdict((prompt, shown, ""), HONEST, outcome=share, **alone)
            yield verdict((prompt, shown, ""), FLIPS, outcome=noisy, **alone)
            yield verdict((prompt, shown, ""), HONEST, outcome=share**2, order="both", dimension="clarity")


def journal_line(k, status="ok", attempt=1, **more):
    facts = {"sha256": f"{k % 7:064x}", "bytes": 40_000 + 1000 * (k % 7), "media_type": "image/jpeg"}
    image = {"type": "image_url", "image_url": {**facts, "width": 512 + k % 7, "height": 384}}
    content = [{"type": "text", "text": "Which?"}, image]
    return {
        "key": f"q{k}",
        "digest": "d",
        "attempt": attempt,
        "status": status,
        "time": f"2026-11-20T10:{k % 60:02d}:00+00:00",
        "request": {"base_url": "http://x/v1", "messages": [{"role": "user", "content": content}], "max_side": 1024},
        "reply": None if status == "error" else "{}",
        "error": None if status == "ok" else "503: busy",
        "id": None,
        "model": None if status == "error" else "made/honest-8b-2026",
        "usage": None if status == "error" else {"prompt_tokens": 1000 + k, "completion_tokens": 20},
        **more,
    }


def journal_lines():
    """30 questions; every fifth first gets an error, one a reply that does not fit."""
    for k in range(30):
        if k % 5 == 0:
            yield journal_line(k, "error")
        if k == 7:
            yield journal_line(k, "bad")
        yield journal_line(k, attempt=2 if k % 5 == 0 else 1)


def _register(run):
    vlm = {"model": "made/honest-8b", "temperature": 0.0, "max_side": 1024, "instruction": "0123456789abcdef"}
    specs = {
        HONEST: ModelSpec(adapter="vlm", name="vlm", revision="v1", params=vlm),
        FLIPS: ModelSpec(adapter="vlm", name="vlm", revision="v1", params={**vlm, "model": "made/flips"}),
        FIRST: ModelSpec(adapter="vlm", name="vlm", revision="v1", params={**vlm, "model": "made/first"}),
    }
    members = ";".join(f"{label} {spec.key[:16]}" for label, spec in specs.items())
    specs[MAJORITY] = ModelSpec(adapter="majority", name="majority", revision="v1", params={"judges": members})
    for label, spec in specs.items():
        runs.register(run, "judges", label, spec)
    for label in GENERATORS:
        runs.register(run, "generators", label, ModelSpec(adapter="external", name="made"))


def bare_run(run, seed=0):
    """A run with prompts and images alone; the keys of its pairs."""
    every, rng = list(prompts()), np.random.default_rng(seed)
    runs.open_run(run, parse_run_file(RUN_FILE), datasets={"made": "1"}, prompts=every)
    _register(run)
    return list(questions(every, _images(run, every, rng)))


def make_run(run, seed=0):
    """The whole run; the keys of its pairs."""
    keys, rng = bare_run(run, seed), np.random.default_rng(seed + 1)
    truth = rng.choice([1, 0, 0.5], len(keys), p=[0.6, 0.25, 0.15]).tolist()
    store.append(run, "verdicts", list(_of_models(keys, truth, rng)))
    store.append(run, "verdicts", list(_of_people(keys, truth, rng)))
    store.append(run, "verdicts", list(_ratings(keys, rng)))
    prompt, image, rival = keys[3]
    names = {"prompt_id": prompt, "image_id": image, "rival_id": rival, "dimension": "overall", "judge": FLIPS}
    store.append(run, "abstentions", [AbstentionRecord(**names, reason=REFUSED, raw=f"I cannot. {HOSTILE}")])
    path = store.journal(run, HONEST)
    path.parent.mkdir()
    path.write_text("".join(f"{json.dumps(line)}\n" for line in journal_lines()), encoding="utf-8")
    return keys
