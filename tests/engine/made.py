"""Small generators: one with weights on this machine, one behind an API. As a script: the command that has them."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import PIL.Image

from widespectrum.errors import HubError, InputError, ModelError
from widespectrum.generators import GENERATORS
from widespectrum.protocols import Failure, Refusal
from widespectrum.registry import Entry
from widespectrum.types import Call, ModelSpec, digest


def color(*parts):
    """A color that everything in `parts` decides."""
    return tuple(bytes.fromhex(digest([str(part) for part in parts])[:6]))


class Neural:
    """Its image is one color that prompt, seed and company decide. Texts say what is to happen to their prompt."""

    needs_images = False

    def __init__(self, *, batch_size=1, device="cpu", seconds=0.0, needs=0, folder="", cannot="", on=""):
        self.batch_size, self.device, self.seconds, self.folder = batch_size, device, seconds, folder
        self.needs_images, self.cannot, self.on = bool(needs), cannot, on
        self.spec = ModelSpec(
            adapter="made", name="neural", revision="v1", params={"width": 8, "height": 6, "cannot": cannot}
        )
        self.drawn = []

    def open(self):
        if self.cannot == "download":
            raise HubError("the connection failed")
        if self.cannot == "open" and self.device.startswith(self.on):
            _ = self.folder and self._first("tried")
            raise InputError("its weights are not there")
        while self.cannot == "open" and self.folder and not (Path(self.folder) / "tried").exists():
            time.sleep(0.01)
        if self.cannot == "begin" and self._first("begun"):
            os.kill(os.getpid(), signal.SIGKILL)

    def _first(self, name):
        """Whether no other process was here before."""
        try:
            (Path(self.folder) / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def check(self, prompts):
        if self.cannot == "check":
            raise InputError("these prompts have no negative_prompt")

    def batch_key(self, prompt):
        if self.cannot == "count" and self._first("counted"):
            os.kill(os.getpid(), signal.SIGKILL)
        return 0, len(prompt.text)

    def noise_seed(self, prompt, seed):
        return 1000 * seed + len(prompt.pair_id)

    def peak_memory(self):
        return 3_000_000_000

    def close(self):
        self.closed = True

    def generate(self, prompts, *, seeds, images=None):
        time.sleep(self.seconds)
        self.drawn.append([prompt.text for prompt in prompts])
        company = sorted(prompt.text for prompt in prompts)
        answers = []
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            if "broken" in prompt.text and self.cannot == "draw":
                raise ModelError("out of memory")
            if "deadly" in prompt.text and self.cannot == "survive":
                os.kill(os.getpid(), signal.SIGKILL)
            if "failing" in prompt.text and self.cannot == "draw":
                answers.append(Failure("it has too many tokens", "input"))
            elif "refused" in prompt.text:
                answers.append(Refusal("not that"))
            else:
                start = images[row].getpixel((0, 0)) if images else ()
                answers.append(PIL.Image.new("RGB", (8, 6), color(prompt.text, seed, company, start)))
        return answers


class Paid:
    """Every prompt costs a call; a share of them fails, others the first time that they are asked for."""

    needs_images = False

    def __init__(self, *, concurrency=4, seconds=0.0, price=None, fails=0.0, cannot="", variant=0):
        self.concurrency, self.price, self.seconds, self.fails, self.cannot = concurrency, price, seconds, fails, cannot
        params = {"size": "8x6", "fails": fails, "cannot": cannot, "variant": variant}
        self.spec = ModelSpec(adapter="made", name="paid", revision="v1", params=params)
        self.lock, self.calls, self.budget, self.asked = threading.Lock(), [], None, []
        self.at_once = self.most_at_once = 0

    def open(self):
        if self.cannot == "open":
            raise InputError("there is no key")

    def limit(self, budget):
        budget.check(self.price, "paid")
        self.budget = budget

    def halt(self):
        pass

    def take_calls(self):
        with self.lock:
            calls, self.calls = self.calls, []
        return calls

    def generate(self, prompts, *, seeds, images=None):
        (prompt,), (seed,) = prompts, seeds
        if self.budget:
            self.budget.reserve(self.price)
        with self.lock:
            self.asked.append(prompt.prompt_id)
            number = len(self.asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        answer = self._answer(prompt, seed)
        status = {Refusal: "refused", Failure: "failed"}.get(type(answer), "ok")
        record = Call(
            **{"call_id": f"{prompt.prompt_id}-{os.urandom(4).hex()}", "prompt_id": prompt.prompt_id, "seed": seed},
            **{"generator": "", "attempt": 1, "status": status, "code": 200, "request_id": "r", "model": "m"},
            **{"cost": self.price, "seconds": 0.1, "detail": getattr(answer, "reason", ""), "time": "2026"},
        )
        with self.lock:
            self.calls.append(record)
            self.at_once -= 1
        if self.cannot == "pay" and number >= 10:
            raise InputError("the key is wrong")
        return [answer]

    def _answer(self, prompt, seed):
        if int(digest(prompt.text)[:8], 16) % 1000 < 1000 * self.fails:
            return Failure("the server was busy", "model")
        if "refused" in prompt.text:
            return Refusal("not that")
        return PIL.Image.new("RGB", (8, 6), color(prompt.text, seed))


ENTRIES = {
    "neural": Entry(target="tests.engine.made:Neural", summary=""),
    "paid": Entry(target="tests.engine.made:Paid", summary=""),
}

# The processes of several devices read this file under the other name.
if __name__ in ("__main__", "__mp_main__"):
    GENERATORS.update(ENTRIES)

if __name__ == "__main__":
    from widespectrum.cli import main

    sys.argv[0] = "widespectrum"
    main()
