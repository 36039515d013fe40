"""A publication that is killed, wherever it is, leaves whole commits; the next one sends the rest and no more."""

import os
import re
import time

import pytest

from widespectrum.hub import Target, publish_folder

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

FILES, SIZE = 200, 20_000
CARD = "---\nconfigs:\n- config_name: a\n  data_files: a/*.parquet\n---\n"
PUBLISH = """
import sys
from pathlib import Path
from widespectrum.hub import Target, publish_folder
publish_folder(Path(sys.argv[1]), Target(repo_id="acme/big", repo_type="dataset", version="1.2.0"))
"""
PUT = "^/lfs/[0-9a-f]+$"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """200 files of noise, which make four commits."""
    made = tmp_path_factory.mktemp("big")
    (made / "a").mkdir()
    for number in range(FILES):
        (made / f"a/{number:03}.parquet").write_bytes(os.urandom(SIZE))
    (made / "README.md").write_text(CARD)
    return made


def kill_at(hub, start, folder, method, path, skip):
    """Start a publication and kill it while the Hub holds back the answer to the request after `skip` others."""
    hub.fail(method, path, "slow", skip=skip, seconds=30)
    process = start("-c", PUBLISH, folder)
    until = time.monotonic() + 30
    while hub.count(method, path) <= skip and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert hub.count(method, path) > skip, process.communicate()
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("method", "path", "skip", "commits"),
    [
        ("POST", "/repos/create", 0, None),
        ("PUT", "/lfs/", 120, 2),
        ("POST", "/commit/", 2, 2),
        ("POST", "/commit/", 3, 3),
        ("POST", "/tag/", 0, 4),
    ],
)
def test_after_a_kill(here, hub, start, folder, method, path, skip, commits):
    kill_at(hub, start, folder, method, path, skip)
    known = hub.has("datasets", "acme/big")
    assert known is (commits is not None)
    if known:
        repo = hub.repo("datasets", "acme/big")
        assert len(repo.commits) == 1 + commits
        # whole commits, the first files first; no card and no version before all is there
        assert [name for name in repo.files if name.startswith("a/")] == [
            f"a/{n:03}.parquet" for n in range(50 * commits)
        ]
        assert ("README.md" in repo.files, repo.tags) == (commits == 4, {})
    arrived = hub.received(PUT)
    made = publish_folder(
        folder, Target(repo_id="acme/big", repo_type="dataset", version="1.2.0"), say=lambda text: None
    )
    repo = hub.repo("datasets", "acme/big")
    wanted = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    assert {name: content for name, content in repo.files.items() if name != ".gitattributes"} == wanted
    assert repo.tags == {"v1.2.0": repo.at("main").oid} == {made.tag: made.commit}
    # what was on the way when it was killed, at most five files at once, is all that goes twice
    twice = hub.received(PUT) - FILES * SIZE
    assert 0 <= twice <= 5 * SIZE
    assert arrived > 0 or commits is None
    assert re.fullmatch("[0-9a-f]{40}", made.commit)
