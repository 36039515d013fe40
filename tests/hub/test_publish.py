"""What a publication sends, deletes, tags and says, over the HTTP API of a loopback Hub."""

import re

import pytest

from widespectrum import hub as hub_module
from widespectrum import hub_plan
from widespectrum.errors import InputError
from widespectrum.hub import Target, download_snapshot, publish_folder, resolve_revision

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CARD = """---
license: cc-by-4.0
configs:
- config_name: plain
  default: true
  data_files:
  - split: test
    path: plain/test-*.parquet
- config_name: extra
  data_files: {extra}
---

# Tiny
"""


@pytest.fixture
def folder(tmp_path):
    """A dataset folder of two configs, with things in it that are not of the dataset."""
    made = tmp_path / "tiny"
    files = {
        "README.md": CARD.replace("{extra}", "extra/*.parquet"),
        "croissant.json": "{}",
        "plain/test-00000-of-00002.parquet": "0" * 5000,
        "plain/test-00001-of-00002.parquet": "1" * 5000,
        "plain/provenance.json": "{}",
        "extra/train-00000-of-00001.parquet": "2" * 5000,
        "extra/.tmp-train.parquet": "half",
        "journal.jsonl": "{}",
        "downloads/photo.jpg": "",
        "downloads/journal.jsonl": "{}",
        "plain/__pycache__/x.pyc": "",
    }
    for name, text in files.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


PUBLISHED = {
    "README.md",
    "croissant.json",
    "plain/test-00000-of-00002.parquet",
    "plain/test-00001-of-00002.parquet",
    "plain/provenance.json",
    "extra/train-00000-of-00001.parquet",
}


def target(version="1.2.0", **more):
    return Target(**{"repo_id": "acme/tiny", "repo_type": "dataset", "version": version, **more})


def publish(folder, version="1.2.0", said=None, **options):
    say = (lambda text: None) if said is None else said.append
    return publish_folder(folder, target(version), say=say, **options)


def writes(hub):
    """The requests that could change something."""
    return [entry.path for entry in hub.log if entry.method not in ("GET", "HEAD")]


def held(hub):
    """What the repository holds, besides what the Hub itself put there."""
    return {path for path in hub.repo("datasets", "acme/tiny").files if path != ".gitattributes"}


@pytest.mark.parametrize("lfs", [True, False])
def test_the_first_publication_creates_sends_and_tags(here, hub, folder, lfs):
    hub.api.lfs = lfs
    said = []
    made = publish(folder, said=said)
    repo = hub.repo("datasets", "acme/tiny")
    assert repo.files == {".gitattributes": repo.files[".gitattributes"]} | {
        name: (folder / name).read_bytes() for name in PUBLISHED
    }
    head = repo.at("main")
    assert repo.tags == {"v1.2.0": head.oid}
    assert (made.commit, made.tag, made.pull_request) == (head.oid, "v1.2.0", None)
    # all of it fits one commit, so no reader ever sees a part
    assert (head.title, len(repo.commits)) == ("Publish v1.2.0", 2)
    assert head.tree["plain/test-00000-of-00002.parquet"].lfs is lfs
    assert f"dataset {hub.url}/datasets/acme/tiny v1.2.0 (public, new)" in said
    assert (
        "left out, of no config that the card names: downloads/journal.jsonl, downloads/photo.jpg, journal.jsonl"
        in said
    )
    assert "left out, hidden files and caches: 2" in said


def test_a_link_that_leads_out_of_the_folder_is_refused(here, hub, folder, tmp_path):
    (tmp_path / "secret").write_text("not for the public")
    (folder / "plain" / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=re.escape(f"notes.txt is a link to {tmp_path}/secret: remove it, or put")):
        publish(folder)
    assert hub.log == []
    (folder / "plain" / "notes.txt").unlink()
    (folder / "plain" / "notes.txt").symlink_to("provenance.json")
    publish(folder)
    assert held(hub) == {*PUBLISHED, "plain/notes.txt"}


def test_a_reader_of_the_messages_who_goes_away_is_not_the_network(here, hub, folder):
    def say(text):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        publish_folder(folder, target(), say=say)


def test_the_second_run_finds_it_done(here, hub, folder):
    first = publish(folder)
    hub.log.clear()
    again = publish(folder)
    assert (again.commit, again.tag, again.plan.is_done) == (first.commit, first.tag, True)
    assert writes(hub) == []


def test_a_new_version_sends_the_difference_and_deletes_within_its_configs_alone(here, hub, folder):
    publish(folder)
    (folder / "plain/test-00001-of-00002.parquet").unlink()
    (folder / "plain/test-00000-of-00002.parquet").write_text("9" * 5000)
    (folder / "plain/more").mkdir()
    (folder / "plain/more/note.txt").write_text("new")
    (folder / "croissant.json").unlink()
    (folder / "README.md").write_text(re.sub(r"- config_name: extra\n.*\n", "", CARD) + "one config\n")
    said, before = [], hub.received("^/lfs/[0-9a-f]+$")
    publish(folder, "1.3.0", said)
    # the card stays last: without it nothing is announced
    assert held(hub) == PUBLISHED - {"plain/test-00001-of-00002.parquet"} | {"plain/more/note.txt"}
    assert "  deleted: plain/test-00001-of-00002.parquet" in said
    assert "1 new, 2 changed, 1 same, 1 deleted; 5.16kB to send in 1 commit" in said
    assert any(line.startswith("note: the card on the Hub also names extra, which this folder") for line in said)
    assert hub.received("^/lfs/[0-9a-f]+$") == before + 5000
    repo = hub.repo("datasets", "acme/tiny")
    assert repo.tags.keys() == {"v1.2.0", "v1.3.0"}
    assert "plain/test-00001-of-00002.parquet" in repo.at("v1.2.0").tree


def test_a_dry_run_shows_every_file_and_the_card_and_sends_nothing(here, hub, folder):
    publish(folder)
    (folder / "plain/test-00000-of-00002.parquet").write_text("9" * 6000)
    (folder / "plain/test-00001-of-00002.parquet").rename(folder / "plain/test-00002-of-00002.parquet")
    (folder / "README.md").write_text(CARD.replace("{extra}", "extra/*.parquet").replace("# Tiny", "# Tiny set"))
    hub.log.clear()
    said = []
    made = publish(folder, "1.3.0", said, dry_run=True)
    assert writes(hub) == []
    assert (made.tag, made.commit) == (None, hub.repo("datasets", "acme/tiny").at("main").oid)
    text = "\n".join(said)
    for line in (
        "  changed   6.00kB  plain/test-00000-of-00002.parquet",
        "  deleted   5.00kB  plain/test-00001-of-00002.parquet",
        "  new       5.00kB  plain/test-00002-of-00002.parquet",
        "  same      5.00kB  extra/train-00000-of-00001.parquet",
        "--- README.md on the Hub\n+++ README.md to publish\n",
        "\n-# Tiny\n+# Tiny set",
        "dry run: nothing was sent",
    ):
        assert line in text
    assert len(re.findall("^  (new|changed|same|deleted) ", text, re.MULTILINE)) == len(PUBLISHED) + 1


def test_a_dry_run_needs_neither_a_repository_nor_a_token(here, hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    said = []
    made = publish(folder, said=said, dry_run=True)
    assert (made.commit, writes(hub), hub.has("datasets", "acme/tiny")) == (None, [], False)
    assert "6 new; 15.2kB to send in 1 commit" in said
    assert "+license: cc-by-4.0" in "\n".join(said)


def test_a_version_that_exists_with_other_content_is_refused(here, hub, folder):
    first = publish(folder).commit
    (folder / "plain/provenance.json").write_text("changed")
    hub.log.clear()
    wanted = rf"v1\.2\.0 of .* is already commit {first[:12]}, with other content .*: raise the version"
    for options in ({}, {"dry_run": True}, {"create_pr": True}):
        with pytest.raises(InputError, match=wanted):
            publish(folder, **options)
    assert writes(hub) == []
    second = publish(folder, "1.2.1").commit
    with pytest.raises(InputError, match=wanted):
        publish(folder, "1.2.0")
    assert hub.repo("datasets", "acme/tiny").tags == {"v1.2.0": first, "v1.2.1": second}


def test_a_version_with_the_same_content_at_another_commit_is_done(here, hub, folder):
    first = publish(folder).commit
    note = [hub_module.CommitOperationAdd("notes.txt", b"by someone else")]
    here.create_commit("acme/tiny", note, repo_type="dataset", commit_message="a note")
    hub.log.clear()
    assert publish(folder).tag == "v1.2.0"
    assert writes(hub) == []
    assert hub.repo("datasets", "acme/tiny").tags == {"v1.2.0": first}
    assert "notes.txt" in held(hub)


def test_private_is_for_new_repositories(here, hub, folder):
    quiet = {"say": lambda text: None}
    publish_folder(folder, target(private=True), **quiet)
    assert hub.repo("datasets", "acme/tiny").private
    publish_folder(folder, target(private=True), **quiet)
    publish_folder(folder, target(repo_id="acme/open"), **quiet)
    with pytest.raises(InputError, match="acme/open exists and is public: --private is for new ones"):
        publish_folder(folder, target(repo_id="acme/open", private=True, version="2.0.0"), **quiet)


def test_a_pull_request_is_opened_once_and_tagged_after_its_merge(here, hub, folder):
    publish(folder)
    (folder / "plain/provenance.json").write_text("changed")
    repo = hub.repo("datasets", "acme/tiny")
    before = repo.at("main")
    # whoever may only read can propose
    made = [publish(folder, "1.3.0", create_pr=True, token="hf_reader") for _ in range(2)]
    assert {each.pull_request for each in made} == {f"{hub.url}/datasets/acme/tiny/discussions/1"}
    assert [each.tag for each in made] == [None, None]
    assert (repo.at("main"), len(repo.pull_requests), repo.tags.keys()) == (before, 1, {"v1.2.0"})
    assert repo.at("refs/pr/1").tree["plain/provenance.json"].content == b"changed"
    # other content is another proposal, and another author's does not count as ours
    publish(folder, "1.3.0", create_pr=True)
    (folder / "plain/provenance.json").write_text("changed again")
    publish(folder, "1.3.0", create_pr=True, token="hf_reader")
    assert [each["author"] for each in repo.pull_requests] == ["reader", "writer", "reader"]
    here.merge_pull_request("acme/tiny", discussion_num=3, repo_type="dataset")
    assert publish(folder, "1.3.0", create_pr=True).pull_request is None
    assert publish(folder, "1.3.0").tag == "v1.3.0"
    assert repo.tags["v1.3.0"] == repo.at("main").oid


def test_a_proposal_that_was_cut_short_goes_on_in_its_pull_request(here, hub, folder, monkeypatch):
    publish(folder)
    for path in folder.glob("*/*.parquet"):
        path.write_text("new" * 3000 + path.name)
    monkeypatch.setattr(hub_plan, "FILES_PER_COMMIT", 1)
    hub.fail("POST", "/commit/", 403, skip=1)
    with pytest.raises(InputError, match="403"):
        publish(folder, "1.3.0", create_pr=True)
    made = publish(folder, "1.3.0", create_pr=True)
    repo = hub.repo("datasets", "acme/tiny")
    assert (made.pull_request[-2:], len(repo.pull_requests)) == ("/1", 1)
    assert {path: blob.content for path, blob in repo.at("refs/pr/1").tree.items() if path in PUBLISHED} == {
        name: (folder / name).read_bytes() for name in PUBLISHED
    }


def test_there_is_nothing_to_propose_to_where_there_is_no_repository(here, hub, folder):
    with pytest.raises(InputError, match="does not exist, so there is nothing to propose a change to"):
        publish(folder, create_pr=True)
    assert writes(hub) == []


def test_many_files_go_in_several_commits_the_card_in_the_last(here, hub, folder, monkeypatch):
    monkeypatch.setattr(hub_plan, "FILES_PER_COMMIT", 1)
    hub.fail("POST", "/commit/", 403, skip=2)
    with pytest.raises(InputError, match="403"):
        publish(folder)
    repo = hub.repo("datasets", "acme/tiny")
    assert held(hub) == {"extra/train-00000-of-00001.parquet", "plain/provenance.json"}
    assert repo.tags == {}
    before = hub.received("^/lfs/[0-9a-f]+$")
    publish(folder)
    titles = [each.title for each in here.list_repo_commits("acme/tiny", repo_type="dataset")]
    assert titles[:2] == ["Publish v1.2.0 (2/2)", "Publish v1.2.0 (1/2)"]
    assert titles[2:] == ["Publish v1.2.0 (2/4)", "Publish v1.2.0 (1/4)", "initial commit"]
    last = repo.at("main")
    assert {path for path in last.tree if repo.commits[last.parent].tree.get(path) != last.tree[path]} == {
        "README.md",
        "croissant.json",
        "plain/test-00001-of-00002.parquet",
    }
    assert repo.tags == {"v1.2.0": last.oid}
    # the first attempt had sent its third file when its commit was refused
    assert hub.received("^/lfs/[0-9a-f]+$") == before + 5000 == 3 * 5000


def test_nothing_is_tagged_that_did_not_arrive(here, hub, folder):
    answer = type(hub.api)._apply
    hub.api._apply = lambda tree, key, value: "provenance" in value["path"] or answer(hub.api, tree, key, value)
    with pytest.raises(InputError, match=r"took the commit but not plain/provenance\.json, so it was not tagged"):
        publish(folder)
    assert hub.repo("datasets", "acme/tiny").tags == {}


def test_a_space_is_all_of_its_folder_and_of_its_repository(here, hub, tmp_path):
    made = tmp_path / "board"
    for name in ("README.md", "app.py", "published/a.csv", ".hidden/x", "__pycache__/app.pyc", "app.py~", "old.py"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("x")
    space = target(repo_id="acme/board", repo_type="space")
    with pytest.raises(InputError, match=r"README\.md: expected `sdk: gradio` .* in the front matter, got None"):
        publish_folder(made, space, say=lambda text: None)
    assert not hub.has("spaces", "acme/board")
    (made / "README.md").write_text("---\nsdk: static\n---\n")
    publish_folder(made, space, say=lambda text: None)
    repo = hub.repo("spaces", "acme/board")
    assert repo.sdk == "static"
    assert repo.files.keys() == {".gitattributes", "README.md", "app.py", "published/a.csv", "old.py"}
    (made / "old.py").unlink()
    said = []
    publish_folder(made, target("1.2.1", repo_id="acme/board", repo_type="space"), say=said.append)
    assert "  deleted: old.py" in said
    assert repo.files.keys() == {".gitattributes", "README.md", "app.py", "published/a.csv"}


def test_long_listings_are_read_whole(here, hub, folder):
    hub.api.page = 2
    publish(folder)
    assert publish(folder).plan.is_done


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("license: cc-by-4.0", "license: [", r"README\.md: the front matter is not YAML \(.*\): correct it$"),
        (CARD, "no front matter", r"README\.md names no configs in its front matter: build the dataset again$"),
        (CARD, "---\n- a\n---\n", r"README\.md: the front matter must be a mapping, got list: correct it$"),
        ("config_name: extra", "name: extra", r"expected `config_name` and `data_files` in \{'name': 'extra'"),
        ("{extra}", "../other/*.parquet", r"the files of 'extra' must lie in a folder of their own, got '\.\./other"),
        ("{extra}", "hf://datasets/a/b", r"the files of 'extra' must lie in a folder of their own, got 'hf://"),
    ],
)
def test_a_card_that_does_not_say_what_is_published(folder, old, new, message):
    assert old in CARD
    (folder / "README.md").write_text(CARD.replace(old, new))
    with pytest.raises(InputError, match=message):
        hub_plan.select(folder, "dataset")
    (folder / "README.md").write_bytes(CARD.encode("utf-16"))
    with pytest.raises(
        InputError, match=r"README\.md: expected UTF-8, got invalid start byte at byte 0: save it anew$"
    ):
        hub_plan.select(folder, "dataset")
    (folder / "README.md").unlink()
    with pytest.raises(InputError, match=r"holds no README\.md: expected a folder to publish, card and all"):
        hub_plan.select(folder, "dataset")


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ("extra/*.parquet", {"extra/train-00000-of-00001.parquet"}),
        ("[{split: train, path: [extra/a.parquet, extra/b.parquet]}]", {"extra/train-00000-of-00001.parquet"}),
        ("[extra/deep/*/x.parquet]", {"extra/train-00000-of-00001.parquet"}),
        ("'*.jsonl'", {"journal.jsonl"}),
    ],
)
def test_what_a_config_owns(folder, given, files):
    (folder / "README.md").write_text(CARD.replace("{extra}", given))
    found = hub_plan.select(folder, "dataset").files.keys()
    assert {name for name in found if not name.startswith("plain/")} - {"README.md", "croissant.json"} == files


def test_a_revision_is_resolved_and_downloaded(here, hub, folder):
    first = publish(folder).commit
    (folder / "plain/provenance.json").write_text("changed")
    second = publish(folder, "1.3.0").commit
    assert resolve_revision("acme/tiny", "dataset") == second
    assert resolve_revision("acme/tiny", "dataset", "v1.2.0") == first
    hub.log.clear()
    assert resolve_revision("acme/tiny", "dataset", first) == first
    assert hub.log == []
    got = download_snapshot("acme/tiny", "dataset", "v1.2.0", patterns=["plain/*"])
    assert {path.name for path in got.rglob("*.*") if path.is_file()} == {
        "test-00000-of-00002.parquet",
        "test-00001-of-00002.parquet",
        "provenance.json",
    }
    assert (got / "plain/provenance.json").read_text() == "{}"
    for repo_id, revision, message in (
        ("acme/none", None, r"^dataset acme/none@main: there is no such repository for this token \(404"),
        ("acme/tiny", "v9.9.9", r"^dataset acme/tiny@v9\.9\.9: there is no such revision \(404"),
    ):
        with pytest.raises(InputError, match=message):
            resolve_revision(repo_id, "dataset", revision)
        with pytest.raises(InputError, match=message):
            download_snapshot(repo_id, "dataset", revision)
