"""The study of a run: its settings, who takes part, and what each rater gets. Fixed once it has begun."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from widespectrum import store
from widespectrum.errors import InputError, RunFolderError
from widespectrum.specs import ModelSpec

from .items import Key, deal, key_of, pairs_of, plan, sample, serve
from .log import RaterLog, folder_of, read_logs, start_log

__all__ = ["TEXT_VERSION", "Settings", "Study", "open_study", "refusal", "spec_of", "texts"]

TEXT_VERSION = "v1"
_AT_WORK = datetime.timedelta(hours=1)
"""How long after the last answer a rater with an open code is still expected to go on."""

_CODE = re.compile(r"[a-z0-9][a-z0-9-]{1,15}")


def _text_bytes() -> bytes:
    return resources.files("widespectrum.annotate").joinpath(f"texts.{TEXT_VERSION}.toml").read_bytes()


def texts() -> dict[str, Any]:
    """What raters read, by name."""
    return tomllib.loads(_text_bytes().decode())


def spec_of(adapter: str, name: str) -> ModelSpec:
    """The spec of a rater, or of several: under which words the answers were given."""
    words = hashlib.sha256(_text_bytes()).hexdigest()[:16]
    return ModelSpec(adapter=adapter, name=name, revision=TEXT_VERSION, params={"instruction": words})


def refusal(code: str) -> str:
    """Why `code` is no code, as a name in `texts()["refusals"]`; empty where it is one."""
    if not code:
        return "empty"
    if "@" in code:
        return "mail"
    if re.search(r"\s", code):
        return "blank"
    return "" if _CODE.fullmatch(code) else "form"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a study is started with.

    Without `raters` anybody may choose a code; then each gets `per_rater` pairs, and `overlap` means nothing. `pairs`
    is how many pairs of the run are judged (None: all), `checks` the attention checks per pair.
    """

    raters: tuple[str, ...] = ()
    overlap: int = 2
    pairs: int | None = None
    per_rater: int = 40
    generators: tuple[str, ...] = ()
    checks: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        why = {code: texts()["refusals"][refusal(code)] for code in self.raters if refusal(code)}
        for code, reason in why.items():
            raise InputError(f"--raters: {code!r} cannot be a code. {reason}")
        if len(set(self.raters)) != len(self.raters):
            raise InputError(f"--raters: expected every code once; got {', '.join(self.raters)}")
        if self.raters and not 1 <= self.overlap <= len(self.raters):
            raise InputError(f"--overlap {self.overlap}: expected 1 to {len(self.raters)}, the number of raters")
        for option, number in (("--pairs", self.pairs), ("--per-rater", self.per_rater)):
            if number is not None and number < 1:
                raise InputError(f"{option} {number}: expected 1 or more")
        if not 0 <= self.checks <= 0.5:
            raise InputError(f"--checks {self.checks}: expected a share from 0 to 0.5 of the pairs")


class Study:
    """A study that has been set up: its pairs, its raters, and their logs."""

    def __init__(self, run: Path, settings: Settings, keys: list[Key]) -> None:
        self.run, self.settings, self.keys = run, settings, keys
        pairs, self._twins = pairs_of(run, settings.generators)
        self.pairs = {key_of(pair): pair for pair in pairs}
        if lost := [key for key in keys if key not in self.pairs]:
            raise RunFolderError(
                f"{run} lacks {len(lost)} of the {len(keys)} pairs of its study: put the images back, or move "
                f"{folder_of(run)} away and start anew"
            )
        self._dealt = deal(keys, settings.raters, settings.overlap, settings.seed) if settings.raters else {}

    def refusal(self, code: str) -> str:
        """As the function of that name, and for a code that the study does not know."""
        why = refusal(code)
        return why or ("unknown" if self.settings.raters and code not in self.settings.raters else "")

    def begin(self, code: str) -> RaterLog:
        """Start the log of a rater who has consented and has none."""
        if not _path(self.run).exists():
            # The folder was deleted while raters are at work: without the study their answers cannot be exported.
            self.save()
        pairs = [self.pairs[key] for key in self._keys_of(code)]
        items = plan(pairs, list(self.pairs.values()), code=code, seed=self.settings.seed, checks=self.settings.checks)
        return start_log(self.run, code, items, TEXT_VERSION)

    def _keys_of(self, code: str) -> list[Key]:
        if self.settings.raters:
            return self._dealt[code]
        answered: Counter[Key] = Counter()
        waiting: Counter[Key] = Counter()
        for log in read_logs(self.run).values():
            done = [item.key for item, _ in log.answered() if item.kind == "pair"]
            answered.update(done)
            if log.is_fresh(_AT_WORK):
                waiting.update(item.key for item in log.items[len(log.given) :] if item.kind == "pair")
        return serve(self.keys, answered, waiting, self.settings.per_rater)

    def save(self) -> None:
        """Write the settings and the pairs down."""
        content = {"text": TEXT_VERSION, **dataclasses.asdict(self.settings), "keys": self.keys}
        store.write_file(_path(self.run), (json.dumps(content, indent=1) + "\n").encode())

    def planned(self) -> list[str]:
        """One sentence per thing to know before it starts."""
        settings = self.settings
        generators = len({self.pairs[key].generator for key in self.keys})
        lines = [f"{_count(len(self.keys), 'pair')} of {_count(generators, 'generator')}"]
        if settings.raters:
            sizes = [len(keys) for keys in self._dealt.values()]
            each = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(max(sizes))
            raters = _count(len(settings.raters), "rater")
            lines.append(f"{raters}; each pair goes to {settings.overlap}, each rater has {each}")
        else:
            share = min(settings.per_rater, len(self.keys))
            lines.append(f"open to anybody with the address; each rater has {share}, those with the fewest answers")
        lines.append(f"attention checks beside them: {settings.checks:.0%} more")
        if self._twins:
            lines.append(f"{self._twins} pairs of twice the same image are left out")
        if settings.pairs is None and len(self.pairs) > len(self.keys):
            lines.append(f"{len(self.pairs) - len(self.keys)} pairs were made after the study began and are not in it")
        return lines


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _path(run: Path) -> Path:
    return folder_of(run) / "study.json"


def open_study(run: Path, given: Mapping[str, Any] | None = None) -> Study:
    """The study of `run`, which `given` settings start where nobody has answered yet.

    A study that has begun goes on as it was started; InputError where one of `given` says otherwise. Without `given`
    it has to be there: RunFolderError.
    """
    path = _path(run)
    if not path.exists() and given is None:
        raise RunFolderError(f"{run} has no study: start one with `widespectrum annotate {run}`")
    stored = _read(path) if path.exists() else None
    if stored and (given is None or read_logs(run)):
        settings, keys = stored
        for name, value in (given or {}).items():
            if (now := getattr(settings, name)) != value:
                option = {"generators": "generator"}.get(name, name).replace("_", "-")
                raise InputError(
                    f"--{option} {_said(value)}: raters have begun with {_said(now)}, and a study stays as it is: "
                    f"leave the option away, or move {folder_of(run)} away to start another one"
                )
        return Study(run, settings, keys)
    settings = dataclasses.replace(stored[0] if stored else Settings(), **(given or {}))
    if (wrong := "per_rater" if settings.raters else "overlap") in (given or {}):
        kind = "open codes: leave it away beside --raters" if settings.raters else "given codes: add --raters"
        raise InputError(f"--{wrong.replace('_', '-')} is for {kind}")
    pairs, _ = pairs_of(run, settings.generators)
    if settings.pairs is not None and settings.pairs > len(pairs):
        raise InputError(f"--pairs {settings.pairs}: the run has {len(pairs)} pairs to judge; ask for as many or fewer")
    keys = [key_of(pair) for pair in sample(pairs, settings.pairs, settings.seed)]
    study = Study(run, settings, keys)
    study.save()
    return study


def _said(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def _read(path: Path) -> tuple[Settings, list[Key]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        keys: list[Key] = [(str(a), str(b), str(c)) for a, b, c in content.pop("keys")]
        text = content.pop("text")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
        settings = Settings(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): put it back as it was") from error
    if text != TEXT_VERSION:
        raise RunFolderError(
            f"{path}: its raters read the words of version {text}, and this widespectrum has {TEXT_VERSION}: "
            "finish it with the version that started it, or move the folder away"
        )
    return settings, keys
