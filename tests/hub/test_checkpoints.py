"""A checkpoint of the Hub is taken at one commit, and only its files are fetched."""

import pytest
import torch

from widespectrum.errors import HubError, InputError
from widespectrum.rewards.checkpoints import Checkpoint, HubFiles

# huggingface_hub calls httpx2 so itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "acme/HPSv2"
FILE = "HPS_v2_compressed.pt"


def test_without_a_path_it_is_downloaded_at_the_commit_that_pins_it(here, hub, tmp_path):
    torch.save({"state_dict": {"weight": torch.arange(3.0)}}, tmp_path / FILE)
    here.create_repo(REPO)
    here.upload_file(repo_id=REPO, path_or_fileobj=tmp_path / FILE, path_in_repo=FILE)
    commit = here.upload_file(repo_id=REPO, path_or_fileobj=b"other", path_in_repo="other.pt").oid
    checkpoint = Checkpoint("hpsv2", None, hub=HubFiles(REPO, (FILE,)), weights=(FILE,))
    assert checkpoint.pin == {"revision": commit}
    assert hub.count("GET", f"resolve/.*/{FILE}") == 0
    assert checkpoint.open().read(["weight"])["weight"].tolist() == [0, 1, 2]
    assert checkpoint.path.name == commit
    assert hub.count("GET", "resolve/.*/other.pt") == 0
    pinned = Checkpoint("hpsv2", None, hub=HubFiles(REPO, (FILE,), revision=commit), weights=(FILE,))
    assert pinned.path == checkpoint.path


def test_it_can_stay_at_a_commit(here):
    here.create_repo(REPO, exist_ok=True)
    first = here.upload_file(repo_id=REPO, path_or_fileobj=b"one", path_in_repo=FILE).oid
    here.upload_file(repo_id=REPO, path_or_fileobj=b"two", path_in_repo=FILE)
    kept, own = (Checkpoint("hpsv2", None, hub=HubFiles(REPO, (FILE,), revision=given)) for given in (None, "main"))
    for checkpoint in (kept, own):
        checkpoint.keep_to(first)
    assert kept.pin == {"revision": first} != own.pin
    assert (kept.path / FILE).read_bytes() == b"one"


def test_what_is_not_on_the_hub_says_what_can_be_given_instead(here):
    absent = Checkpoint("hpsv2", None, hub=HubFiles("acme/absent", (FILE,)), weights=(FILE,))
    expected = r"^the checkpoint of hpsv2 could not be had from the Hub; .*\(offline, give a local file or folder"
    with pytest.raises((InputError, HubError), match=expected) as caught:
        absent.open()
    assert str(caught.value).count("the checkpoint of hpsv2") == str(caught.value).count("(offline,") == 1
