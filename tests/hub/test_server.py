"""The loopback Hub answers huggingface_hub as the real one does, also where it refuses."""

import contextlib
import hashlib
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

HTTP_ERROR = HfHubHTTPError.__bases__[0]
DATA = {"repo_id": "acme/data", "repo_type": "dataset"}


@pytest.fixture
def repo(here):
    here.create_repo(**DATA)
    files = {"README.md": b"---\nlicense: mit\n---\n", "a/x.parquet": b"parquet" * 99, "a/b/c.txt": b"text"}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    here.create_commit(**DATA, operations=operations, commit_message="first")
    return files


def commit(api, path="note.txt", content=b"note", **options):
    operations = [CommitOperationAdd(path, content)]
    return api.create_commit(**DATA, operations=operations, commit_message="more", **options)


def git_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_files_have_the_ids_that_git_and_lfs_give_them(here, hub, repo):
    found = {each.path: each for each in here.list_repo_tree(**DATA, recursive=True)}
    assert found["a/b/c.txt"].blob_id == git_id(b"text")
    parquet = repo["a/x.parquet"]
    sha256 = hashlib.sha256(parquet).hexdigest()
    assert (found["a/x.parquet"].lfs.sha256, found["a/x.parquet"].size) == (sha256, len(parquet))
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(parquet)}\n"
    assert found["a/x.parquet"].blob_id == git_id(pointer.encode())
    assert {"a", "a/b", ".gitattributes"} < found.keys()
    assert [each.path for each in here.list_repo_tree(**DATA, path_in_repo="a")] == ["a/b", "a/x.parquet"]
    assert {each.path for each in here.get_paths_info(**DATA, paths=["a", "README.md", "none"])} == {"a", "README.md"}
    assert hub.count("PUT", "/lfs/") == 1


def test_a_long_listing_comes_in_pages(here, hub, repo):
    whole = [each.path for each in here.list_repo_tree(**DATA, recursive=True)]
    hub.api.page = 2
    assert [each.path for each in here.list_repo_tree(**DATA, recursive=True)] == whole
    assert hub.count("GET", "/tree/") == 1 + 3


def test_what_is_there_is_not_sent_again(here, hub, repo):
    before = here.repo_info(**DATA).sha
    assert commit(here, "a/x.parquet", repo["a/x.parquet"]).oid == before
    assert commit(here, "copy.parquet", repo["a/x.parquet"]).oid != before
    assert hub.count("PUT", "/lfs/") == 1


def test_commits_branches_tags_and_reading_a_revision(here, repo):
    first = here.repo_info(**DATA).sha
    here.create_tag(**DATA, tag="v1.0.0")
    here.create_branch(**DATA, branch="side")
    gone = [CommitOperationDelete("a/b/"), CommitOperationAdd("README.md", b"---\nlicense: mit\n---\nnew\n")]
    second = here.create_commit(**DATA, operations=gone, commit_message="second", parent_commit=first).oid
    refs = here.list_repo_refs(**DATA)
    assert {each.name: each.target_commit for each in refs.branches} == {"main": second, "side": first}
    assert {each.name: each.target_commit for each in refs.tags} == {"v1.0.0": first}
    assert [each.title for each in here.list_repo_commits(**DATA)] == ["second", "first", "initial commit"]
    assert "a/b/c.txt" not in here.list_repo_files(**DATA)
    for revision, text in (
        ("v1.0.0", repo["README.md"]),
        (first, repo["README.md"]),
        ("main", b"---\nlicense: mit\n---\nnew\n"),
    ):
        path = here.hf_hub_download(**DATA, filename="README.md", revision=revision)
        assert Path(path).read_bytes() == text


def test_a_range_of_a_file(here, hub, repo):
    files = HfFileSystem(endpoint=hub.url, token="hf_writer", skip_instance_cache=True)
    with files.open("datasets/acme/data/a/x.parquet", "rb", block_size=10) as file:
        file.seek(700 - 14)
        assert file.read(5) == (b"parquet" * 99)[686:691]
    assert any(entry.status == 206 for entry in hub.log)


def test_a_pull_request_is_read_and_merged(here, repo):
    made = commit(HfApi(endpoint=here.endpoint, token="hf_reader"), create_pr=True)
    assert (made.pr_revision, made.pr_num) == ("refs/pr/1", 1)
    commit(HfApi(endpoint=here.endpoint, token="hf_reader"), "second.txt", revision="refs/pr/1")
    assert {"note.txt", "second.txt"} < set(here.list_repo_files(**DATA, revision="refs/pr/1"))
    assert "note.txt" not in here.list_repo_files(**DATA)
    (proposal,) = here.get_repo_discussions(**DATA, discussion_type="pull_request", discussion_status="open")
    assert (proposal.title, proposal.author, proposal.status) == ("more", "reader", "open")
    commit(here, "meanwhile.txt")
    here.merge_pull_request(**DATA, discussion_num=1)
    assert {"note.txt", "second.txt", "meanwhile.txt"} < set(here.list_repo_files(**DATA))
    details = here.get_discussion_details(**DATA, discussion_num=1)
    assert (details.status, details.merge_commit_oid) == ("merged", here.repo_info(**DATA).sha)
    assert list(here.get_repo_discussions(**DATA, discussion_status="open")) == []


def test_private_repositories_are_seen_by_members_alone(here, hub):
    here.create_repo("acme/secret", repo_type="space", private=True, space_sdk="static")
    assert here.repo_info("acme/secret", repo_type="space").private
    assert [each.id for each in here.list_spaces(author="acme")] == []
    for token in ("hf_reader", False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.url, token=token).repo_info("acme/secret", repo_type="space")


def test_datasets_and_models_are_listed_by_author(here, repo):
    here.create_repo("writer/model")
    assert [each.id for each in here.list_datasets(author="acme")] == ["acme/data"]
    assert [each.id for each in here.list_models(author="writer")] == ["writer/model"]
    assert here.whoami()["name"] == "writer"


@pytest.mark.parametrize(
    ("call", "error", "status"),
    [
        (lambda api: api.repo_info("acme/none"), RepositoryNotFoundError, 404),
        (lambda api: api.repo_info(**DATA, revision="none"), RevisionNotFoundError, 404),
        (lambda api: api.hf_hub_download(**DATA, filename="none"), EntryNotFoundError, 404),
        (lambda api: api.create_repo(**DATA), HfHubHTTPError, 409),
        (lambda api: api.create_repo("others/data"), HfHubHTTPError, 403),
        (lambda api: commit(api, parent_commit="0" * 40), HfHubHTTPError, 412),
        (lambda api: [api.create_tag(**DATA, tag="t") for _ in range(2)], HfHubHTTPError, 409),
        (lambda api: HfApi(api.endpoint, "hf_wrong").repo_info(**DATA), HfHubHTTPError, 401),
        (lambda api: HfApi(api.endpoint, False).create_repo("acme/x"), HfHubHTTPError, 401),
        (lambda api: commit(HfApi(api.endpoint, "hf_reader")), HfHubHTTPError, 403),
    ],
)
def test_refusals(here, repo, call, error, status):
    with pytest.raises(error) as caught:
        call(here)
    assert caught.value.response.status_code == status


def test_an_existing_repository_is_fine_where_that_is_said_and_bad_front_matter_is_refused(here, repo):
    assert here.create_repo(**DATA, exist_ok=True).repo_id == "acme/data"
    with pytest.raises(ValueError, match="Invalid metadata"):
        commit(here, "README.md", b"---\n- a list\n---\n")


def test_faults_come_as_planned(here, hub, repo):
    hub.fail("GET", "/refs$", 503, times=1, skip=1, headers={"Retry-After": "7"})
    here.list_repo_refs(**DATA)
    with pytest.raises(HfHubHTTPError) as caught:
        here.list_repo_refs(**DATA)
    assert (caught.value.response.status_code, caught.value.response.headers["Retry-After"]) == (503, "7")
    here.list_repo_refs(**DATA)
    for action, carried_out in (("cut", False), ("lost", True)):
        hub.fail("POST", "/commit/", action)
        with pytest.raises(Exception, match=r"disconnected|complete|reset|peer"):
            commit(here, f"{action}.txt")
        assert (f"{action}.txt" in hub.repo("datasets", "acme/data").files) is carried_out


def test_a_download_that_was_cut_goes_on(here, hub, repo, tmp_path):
    hub.fail("GET", "/resolve/", "lost")
    for _ in range(2):  # huggingface_hub 2 goes on by itself, 1 when it is asked again
        with contextlib.suppress(HTTP_ERROR):
            path = hf_hub_download(**DATA, filename="a/x.parquet", cache_dir=tmp_path, endpoint=hub.url)
    assert Path(path).read_bytes() == repo["a/x.parquet"]
