"""Whatever breaks a publication off: one clear sentence, whole commits, and a second run that completes."""

import re
import time

import huggingface_hub
import pytest
from huggingface_hub import constants

from widespectrum import hub_plan
from widespectrum.errors import HubError, InputError, WideSpectrumError
from widespectrum.hub import Target, download_snapshot, publish_folder, resolve_revision
from widespectrum.hub_errors import explain

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CARD = "---\nconfigs:\n- config_name: a\n  data_files: a/*.parquet\n---\n"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "tiny"
    (made / "a").mkdir(parents=True)
    (made / "README.md").write_text(CARD)
    for number in range(4):
        (made / f"a/{number}.parquet").write_text(str(number) * 1000)
    (made / "a/note.txt").write_text("sent within the commit")
    return made


@pytest.fixture
def waits(monkeypatch):
    """The seconds that would have been waited."""
    asked = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


@pytest.fixture(autouse=True)
def two_files_a_commit(monkeypatch):
    monkeypatch.setattr(hub_plan, "FILES_PER_COMMIT", 2)


def publish(folder, version="1.2.0", **options):
    target = Target(repo_id="acme/tiny", repo_type="dataset", version=version)
    return publish_folder(folder, target, **{"say": lambda text: None, **options})


def is_complete(hub, folder):
    """Whether the Hub holds all of it, once, as a version."""
    repo = hub.repo("datasets", "acme/tiny")
    wanted = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    assert {path: content for path, content in repo.files.items() if path != ".gitattributes"} == wanted
    assert repo.tags == {"v1.2.0": repo.at("main").oid}
    assert len(repo.commits) == 1 + 3
    return True


STEPS = {
    "look": ("GET", "/api/datasets/acme/tiny$"),
    "create": ("POST", "/repos/create"),
    "tags": ("GET", "/refs$"),
    "listing": ("GET", "/tree/"),
    "what is large": ("POST", "/preupload/"),
    "where to": ("POST", "/objects/batch"),
    "large file": ("PUT", "/lfs/"),
    "check of a large file": ("POST", "/verify$"),
    "card": ("POST", "/validate-yaml"),
    "commit": ("POST", "/commit/"),
    "tag": ("POST", "/tag/"),
}


@pytest.mark.parametrize("action", [503, 429, "cut", "lost"])
@pytest.mark.parametrize("step", STEPS)
def test_what_passes_by_itself_is_tried_again(here, hub, folder, waits, step, action):
    fault = hub.fail(*STEPS[step], action)
    publish(folder)
    assert fault.times == 0
    assert 1 <= len(waits) <= 2
    assert is_complete(hub, folder)


KEPT = "the same command goes on where it stopped."
LASTING = {
    502: rf"the Hub has a fault of its own \(502\): {KEPT}",
    429: rf"the Hub asks to be left alone \(429: fault on demand\): {KEPT}",
    "cut": rf"the connection failed \(\w+\): check the network; {KEPT}",
}


@pytest.mark.parametrize("action", LASTING)
@pytest.mark.parametrize("step", ["look", "create", "tags", "card", "commit", "tag"])
def test_what_does_not_pass_ends_with_a_sentence_and_the_next_run_completes(here, hub, folder, waits, step, action):
    message = LASTING[action]
    if (step, action) == ("card", 502):  # that page is read before its status is looked at
        message = f"what answers in place of the Hub is not the Hub: check HF_ENDPOINT; {KEPT}"
    fault = hub.fail(*STEPS[step], action, 5)
    said = []
    with pytest.raises(HubError, match=rf"^{hub.url}/datasets/acme/tiny: {message}$"):
        publish(folder, say=said.append)
    assert (fault.times, waits) == (0, [1, 2, 4, 8])
    assert sum("Trying again in" in line for line in said) == 4
    publish(folder)
    assert is_complete(hub, folder)


REFUSALS = {
    401: "the Hub does not know the token (401: fault on demand): check HF_TOKEN, or run `hf auth login` again",
    403: "the token may not write there (403: fault on demand): take one with write access, or propose the change "
    "with --pr",
    404: "there is no such repository for this token (404: fault on demand): check its name and what the token may see",
    409: "something else is in the way there (409: fault on demand): see what a dry run says (--dry-run), and run it "
    "again",
    412: "someone else has changed it meanwhile (412: fault on demand): look at it with --dry-run, and run it again",
    400: "the Hub refuses what was sent (400: fault on demand)",
    413: "the Hub refuses what was sent (413: fault on demand)",
}

REFUSED_NAME = (
    "the token may not create a repository there (403: fault on demand): check the name before the '/', and that the "
    "token may write to it"
)


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("step", ["create", "large file", "commit", "tag"])
def test_a_refusal_is_one_sentence_and_is_not_tried_again(here, hub, folder, waits, step, status):
    fault = hub.fail(*STEPS[step], status)
    with pytest.raises(InputError) as caught:
        publish(folder)
    refusal = REFUSED_NAME if (step, status) == ("create", 403) else REFUSALS[status]
    assert str(caught.value) == f"{hub.url}/datasets/acme/tiny: {refusal}"
    assert (fault.times, waits) == (0, [])
    publish(folder)
    assert is_complete(hub, folder)


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"Retry-After": "17"}, [17]),
        ({"RateLimit": '"api";r=0;t=55'}, [55]),
        ({"RateLimit": '"api";r=3;t=55'}, [1]),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, [1]),
    ],
)
def test_the_time_that_the_hub_asks_for_is_kept(here, hub, folder, waits, headers, waited):
    hub.fail("POST", "/commit/", 429, headers=headers)
    publish(folder)
    assert waits == waited
    assert is_complete(hub, folder)


def test_an_hour_is_not_waited_for(here, hub, folder, waits):
    hub.fail("POST", "/commit/", 429, headers={"Retry-After": "3600"})
    with pytest.raises(HubError, match=r"left alone \(429: .*\): the same .* it stopped, after 3600 s\.$"):
        publish(folder)
    assert waits == []


def test_a_change_by_someone_else_is_not_overwritten(here, hub, folder, waits):
    publish(folder)
    repo = hub.repo("datasets", "acme/tiny")
    head = repo.at("main")

    def someone_else_is_faster():
        repo.commit("refs/heads/main", dict(head.tree), head.oid, ("theirs", "", "other"))

    (folder / "a/0.parquet").write_text("new")
    hub.fail("POST", "/commit/", someone_else_is_faster)
    with pytest.raises(InputError, match=r"someone else has changed it meanwhile \(412: A commit has happened since"):
        publish(folder, version="1.3.0")
    assert (waits, repo.at("main").title) == ([], "theirs")
    assert publish(folder, version="1.3.0").commit == repo.at("main").oid


def test_front_matter_that_the_hub_refuses(here, hub, folder):
    answer = '{"errors": [{"message": "license: not\\na license"}]}'
    hub.fail("POST", "/validate-yaml", 400, body=answer)
    message = r"the Hub refuses what was sent: Invalid metadata in README\.md\. - license: not a license$"
    with pytest.raises(InputError, match=message):
        publish(folder)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "no token for the Hub: run `hf auth login`, or set HF_TOKEN to a token with write access"),
        ("hf_s\u00e9cret", "the token of the Hub holds characters that no token has: copy it once more into HF_TOKEN"),
        ("hf_se cret", "the token of the Hub holds characters that no token has: copy it once more into HF_TOKEN"),
        ("hf_wrong", "the Hub does not know the token (401: Invalid credentials in Authorization header): check"),
        (
            "hf_reader",
            "the token may not create a repository there (403: You don't have the rights to create a dataset",
        ),
    ],
)
def test_tokens_that_do_not_serve(here, hub, folder, monkeypatch, token, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        publish(folder)
    assert "hf_" not in str(caught.value)
    assert not hub.has("datasets", "acme/tiny")


def test_a_refused_token_is_not_taken_for_a_repository_that_is_missing(here, hub, folder):
    hub.fail("GET", "/api/datasets/acme/tiny", 401, headers={"X-Error-Code": "RepoNotFound"})
    with pytest.raises(InputError, match=r"the Hub does not know the token \(401"):
        publish(folder)
    assert hub.count("POST", "/repos/create") == 0


@pytest.mark.skipif(huggingface_hub.__version__ < "2", reason="goes back to large file storage by itself")
def test_where_xet_is_not_answered(here, hub, folder, waits, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match=r"tiny: the connection failed \(ConnectionError\): check the network; the same"):
        publish(folder)
    assert (hub.count("GET", "/xet-write-token/"), waits) == (5, [1, 2, 4, 8])
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    publish(folder)
    assert is_complete(hub, folder)


@pytest.mark.parametrize("read", [resolve_revision, download_snapshot])
@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (503, HubError, r"the Hub has a fault of its own \(503\): the same command goes on where it stopped\."),
        (
            "cut",
            HubError,
            r"the connection failed \(\w+\): check the network; the same command goes on where it stopped\.",
        ),
        (401, InputError, r"the Hub does not know the token \(401: fault on demand\): check HF_TOKEN, or run .*"),
        ("offline", InputError, r"HF_HUB_OFFLINE is set, so nothing may reach the Hub: unset it"),
    ],
)
def test_reading_fails_with_a_sentence_too(here, hub, folder, waits, monkeypatch, read, action, error, message):
    publish(folder)
    if action == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hub.fail("GET", "/api/datasets/", action, 99)
    with pytest.raises(error, match=rf"^dataset acme/tiny@v1\.2\.0: {message}$"):
        read("acme/tiny", "dataset", "v1.2.0")


def test_a_message_of_the_hub_that_repeats_the_token_does_not_show_it(here, hub, folder, monkeypatch):
    hub.fail("POST", "/commit/", 400, headers={"X-Error-Message": "bad token hf_writer"})
    with pytest.raises(InputError, match=r"bad token hf_\.\.\."):
        publish(folder)
    hub.fail("POST", "/commit/", 503, headers={"X-Error-Message": "bad token hf_writer"})
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    said = []
    publish(folder, say=said.append)
    assert any("bad token hf_..." in line for line in said)
    assert not any("hf_writer" in line for line in said)


def test_what_has_nothing_to_do_with_the_hub_is_not_explained():
    assert explain(KeyError("x"), "") is None
    assert explain(ValueError("x"), "") is None
    own = WideSpectrumError("x")
    assert explain(own, "") is own
