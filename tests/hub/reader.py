"""Reads from the Hub what was published there, as a stranger would: run in a process of its own, prints JSON.

python reader.py dataset ORG/NAME TAG SHA, or metrics VERSION ORG/NAME..., or snapshot TYPE ORG/NAME
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """A cell as JSON; an image as what one sees of it."""
    if hasattr(value, "tobytes"):
        return [value.mode, *value.size, hashlib.sha256(value.convert("RGB").tobytes()).hexdigest()]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else str(value)


def digest(rows: Iterable[Any]) -> str:
    """sha256 over rows and their order."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(plain(row), sort_keys=True).encode())
    return total.hexdigest()


def read_dataset(repo_id: str, tag: str, sha: str) -> dict[str, Any]:
    """Every split of every config, each read in every way."""
    import datasets

    found = {}
    for config in datasets.get_dataset_config_names(repo_id):
        for split, whole in datasets.load_dataset(repo_id, config).items():
            streamed = datasets.load_dataset(repo_id, config, split=split, streaming=True)
            found[f"{config}/{split}"] = {
                "features": str(whole.features),
                "rows": digest(whole),
                "streamed": digest(streamed),
                "slice": digest(datasets.load_dataset(repo_id, config, split=f"{split}[:2]")),
                "tag": digest(datasets.load_dataset(repo_id, config, split=split, revision=tag)),
                "sha": digest(datasets.load_dataset(repo_id, config, split=split, revision=sha)),
            }
    default = {split: digest(table) for split, table in datasets.load_dataset(repo_id).items()}
    return {"splits": found, "default": default, "files": read_snapshot("dataset", repo_id)}


def read_metrics(version: str, *repo_ids: str) -> dict[str, Any]:
    """What each metric, loaded by its name, computes on the cases of its Space; the last is the first, by version."""
    import importlib.util

    import evaluate
    from huggingface_hub import hf_hub_download

    results = {}
    for repo_id in repo_ids:
        spec = importlib.util.spec_from_file_location("cases", hf_hub_download(repo_id, "tests.py", repo_type="space"))
        cases = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cases)
        forms = {form: evaluate.load(repo_id, form) for form in {case.get("form") for case in cases.test_cases}}
        pinned = evaluate.load(repo_id, cases.test_cases[0].get("form"), revision=version)
        asked = [(forms[case.get("form")], case) for case in cases.test_cases] + [(pinned, cases.test_cases[0])]
        results[repo_id] = [metric.compute(**case["inputs"], **case["keywords"]) for metric, case in asked]
    return results


def read_snapshot(kind: str, repo_id: str) -> dict[str, str]:
    """The files of a repository and their sha256."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repo_id, repo_type=kind))
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    what, *names = sys.argv[1:]
    reading = {"dataset": read_dataset, "metrics": read_metrics, "snapshot": read_snapshot}
    print(json.dumps(reading[what](*names)))
