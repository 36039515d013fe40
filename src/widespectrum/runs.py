"""A run folder: its lock, its run file, its manifest and its prompts."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import __version__, store
from .config import ModelChoice, RunConfig, read_run_file
from .errors import InputError, RunFolderError
from .types import ModelSpec, Prompt, RunManifest
from .vendor import functional_digest

__all__ = [
    "check_run",
    "finish",
    "has_results",
    "held",
    "locked",
    "open_run",
    "read_manifest",
    "register",
    "save_run_file",
    "withdraw",
    "write_manifest",
]

SCHEMA_VERSION = 4
_PACKAGES = (
    "accelerate",
    "datasets",
    "diffusers",
    "matplotlib",
    "numpy",
    "openai",
    "pandas",
    "peft",
    "pillow",
    "pyarrow",
    "replicate",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
)

_RESULTS = {
    "generators": (("images", "generator"),),
    "reward_models": (("scores", "reward_model"),),
    "judges": (("verdicts", "judge"), ("abstentions", "judge")),
}
"""Where the results of each kind of model stand: (table, column)."""


def _refuse_foreign(run: Path) -> None:
    """InputError where `run` is a file, or a folder that holds something else than a run."""
    if not run.exists():
        return
    if not run.is_dir():
        raise InputError(f"{run} is a file; a run needs a folder: choose another one with --out")
    files = {path.name for path in run.iterdir() if not path.name.startswith(".tmp-")}
    if "manifest.json" not in files and files - {".lock", "run.toml"}:
        raise InputError(f"{run} is not empty and is no run folder: choose another folder with --out")


@contextmanager
def held(path: Path, taken: str, advice: str) -> Iterator[None]:
    """Hold a lock file for this process; RunFolderError "`taken` by (the owner): `advice`" where another has it.

    The lock belongs to the process, so a killed one leaves none behind.
    """
    import fcntl

    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunFolderError(f"{taken} by {owner}: {advice}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder for this process; RunFolderError where another process has it.

    A folder with other things in it is refused and left as it is.
    """
    _refuse_foreign(run)
    run.mkdir(parents=True, exist_ok=True)
    with held(run / ".lock", f"{run} is in use", "wait for it to end, or stop it"):
        store.clean(run)
        yield


def _git(*arguments: str) -> str | None:
    """What git says about the clone that this package runs from; None outside a clone."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _packages() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _new_manifest(seed: int, datasets: Mapping[str, str]) -> RunManifest:
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return RunManifest(
        schema_version=SCHEMA_VERSION,
        benchmark_version=__version__,
        datasets=datasets,
        specs={"generators": {}, "reward_models": {}, "judges": {}},
        functional_digest=functional_digest(),
        packages=_packages(),
        git_commit=_git("rev-parse", "HEAD"),
        dirty=None if changes is None else bool(changes),
        seed=seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        status="started",
    )


def write_manifest(run: Path, manifest: RunManifest) -> None:
    """Write manifest.json in one step."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False)
    store.write_file(run / "manifest.json", (text + "\n").encode())


def read_manifest(run: Path) -> RunManifest:
    """The manifest of a run folder; RunFolderError where there is none or it is not one of ours."""
    path = run / "manifest.json"
    if not path.is_file():
        raise RunFolderError(f"{run} is no run folder: it has no manifest.json")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        # Another version may hold other fields, so it is looked at first.
        if version == SCHEMA_VERSION:
            return RunManifest(**content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} is not a manifest of widespectrum ({error}): restore it, or choose another folder with --out"
        ) from error
    raise RunFolderError(f"{path} has schema version {version}; this version of widespectrum reads {SCHEMA_VERSION}")


def check_run(run: Path, config: RunConfig) -> RunManifest:
    """The manifest of `run`; RunFolderError where there is no run, or it was started with another run file.

    Judges and reward models without results may come, go and be corrected.
    """
    manifest = read_manifest(run)
    if (run / "run.toml").is_file():
        begun = read_run_file(run)
        if begun.asks_for != config.asks_for and _begun(run, begun) != _begun(run, config):
            raise RunFolderError(
                f"{run} holds a run of another run file ({run / 'run.toml'}): choose another folder with --out. Only "
                "[evaluate], batch_size, and judges and reward models without results may change"
            )
    return manifest


def _begun(run: Path, config: RunConfig) -> tuple[Any, ...]:
    """What a run file asks for, of judges and reward models only those that have results in `run`."""

    def kept(kind: str) -> tuple[ModelChoice, ...]:
        return tuple(choice for choice in getattr(config, kind) if has_results(run, kind, choice.label))

    return dataclasses.replace(config, reward_models=kept("reward_models"), judges=kept("judges")).asks_for


def _same_run(run: Path, config: RunConfig, datasets: Mapping[str, str]) -> None:
    """Refuse to mix two runs in one folder."""
    if dict(check_run(run, config).datasets) != dict(datasets):
        raise RunFolderError(
            f"the prompts or photographs of {run} have changed since it was started: choose another folder with --out"
        )


def save_run_file(run: Path, config: RunConfig) -> None:
    """Keep the run file with the run, as the user wrote it."""
    store.write_file(run / "run.toml", config.text.encode())


def open_run(run: Path, config: RunConfig, *, datasets: Mapping[str, str], prompts: Sequence[Prompt]) -> None:
    """Start a run folder, or check that the one there is the same run, so that it can go on.

    `datasets` holds the revision of everything the run starts from, by name. Call it with the run locked.
    """
    if (run / "manifest.json").exists():
        _same_run(run, config, datasets)
    save_run_file(run, config)
    if not (run / "manifest.json").exists():
        write_manifest(run, _new_manifest(config.seeds[0], datasets))
    todo = set(store.missing(run, "prompts", [(prompt.pair_id, prompt.role) for prompt in prompts]))
    store.append(run, "prompts", [prompt for prompt in prompts if (prompt.pair_id, prompt.role) in todo])


def has_results(run: Path, kind: str, label: str) -> bool:
    """Whether the tables of `run` hold anything of the model with this label."""
    return any(label in store.read(run, table, [column])[column].to_pylist() for table, column in _RESULTS[kind])


def _other(one: ModelSpec, than: ModelSpec) -> str:
    """What of one spec is not so in another."""

    def parts(spec: ModelSpec) -> dict[str, object]:
        revision = {"revision": spec.revision} if spec.revision else {}
        # In one, because there are parameters that are called adapter.
        return {"name": f"{spec.adapter}:{spec.name}", **revision, **spec.params}

    ours, theirs = parts(one), parts(than)
    names = [name for name in {**ours, **theirs} if repr(ours.get(name)) != repr(theirs.get(name))]
    return ", ".join(f"{name} {ours.get(name, 'not given')}" for name in names)


def register(run: Path, kind: str, label: str, spec: ModelSpec) -> None:
    """Write down which model a label stands for; RunFolderError where there are results of another one under it."""
    manifest = read_manifest(run)
    table = dict(manifest.specs.get(kind, {}))
    known = ModelSpec.parse(table[label]) if label in table else spec
    if known.key != spec.key and has_results(run, kind, label):
        raise RunFolderError(
            f"{run} holds results of {label} with {_other(known, spec)}, which is now {_other(spec, known)}: give it "
            "another label=NAME, or choose another folder with --out"
        )
    if table.get(label) != str(spec):
        table[label] = str(spec)
        specs = {**manifest.specs, kind: table}
        write_manifest(run, dataclasses.replace(manifest, specs=specs, status="started"))


def withdraw(run: Path, kind: str, labels: Collection[str]) -> None:
    """Take off the manifest which of `labels` have no results: they were only tried, and nobody waits for them."""
    manifest = read_manifest(run)
    table = manifest.specs.get(kind, {})
    kept = {label: spec for label, spec in table.items() if label not in labels or has_results(run, kind, label)}
    if kept != table:
        write_manifest(run, dataclasses.replace(manifest, specs={**manifest.specs, kind: kept}))


def finish(run: Path) -> None:
    """Record that everything that was wanted is there."""
    manifest = read_manifest(run)
    if manifest.status != "complete":
        write_manifest(run, dataclasses.replace(manifest, status="complete"))
