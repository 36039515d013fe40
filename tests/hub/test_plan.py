"""Versions, commits and ids of a publication, before any Hub is asked."""

import hashlib
import re

import pytest

from widespectrum import hub_plan
from widespectrum.errors import InputError
from widespectrum.hub_plan import Target


def target(version="1.2.0", **more):
    return Target(**{"repo_id": "acme/tiny", "repo_type": "dataset", "version": version, **more})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repo_id": "tiny"}, "--repo: expected ORG/NAME, got 'tiny'"),
        ({"repo_id": "a/b/c"}, "--repo: expected ORG/NAME, got 'a/b/c'"),
        ({"version": "one"}, "--version: expected a version such as 1.2.0, got 'one'"),
        ({"version": "1.2"}, "--version: expected a version such as 1.2.0, got '1.2'"),
    ],
)
def test_targets_that_cannot_be(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        target(**{"version": "1.2.0", **change})


def test_versions_and_titles():
    assert [target(version).tag for version in ("1.2.0", "v1.2.0", "2.0.0rc1")] == ["v1.2.0", "v1.2.0", "v2.0.0rc1"]
    assert (target().title, target(message="Say so").title) == ("Publish v1.2.0", "Say so")


def test_large_files_start_a_commit_of_their_own(monkeypatch):
    monkeypatch.setattr(hub_plan, "BYTES_PER_COMMIT", 100)
    sizes = (60, 50, 50, 300, 10)
    changes = [hub_plan.Change(f"a/{number}", "new", size) for number, size in enumerate(sizes)]
    card, gone = hub_plan.Change("README.md", "changed", 5), hub_plan.Change("a/old", "deleted", 7)
    made = hub_plan.batches(hub_plan.Plan(changes=(card, *changes, gone)))
    assert [[change.size for change in group] for group in made] == [[60], [50, 50], [300], [10, 5, 7]]
    assert hub_plan.batches(hub_plan.Plan(changes=(card,))) == [[card]]
    assert hub_plan.batches(hub_plan.Plan(changes=(hub_plan.Change("a", "same", 1),))) == []


def test_ids_are_those_of_git_and_of_large_file_storage(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"what is up, doc?")
    file = hub_plan.LocalFile(path, 16)
    # the example of the book "Pro Git"
    assert file.oid == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert file.sha256 == hashlib.sha256(b"what is up, doc?").hexdigest()
