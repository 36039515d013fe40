"""An image-text model of the Hub is taken at one commit, and that commit is written down."""

from __future__ import annotations

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from widespectrum.ava.embedding import embed_texts, load_model
from widespectrum.embedding_models import full_name
from widespectrum.errors import HubError, InputError
from widespectrum.rewards.any_clip import AnyClipReward

# huggingface_hub calls httpx2 so itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "acme/tiny-clip"


@pytest.fixture
def pushed(here, tmp_path):
    """The commit of a tiny model on the Hub; beside its weights lies a pickle that nobody should fetch."""
    folder = tmp_path / "model"
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 6, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    vocabulary = ["<|startoftext|>", "<|endoftext|>", "a</w>", "a", "b</w>", "b"]
    tokenizer = transformers.CLIPTokenizer(vocab={token: n for n, token in enumerate(vocabulary)}, merges=[])
    tokenizer.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_bytes(b"{}")
    here.create_repo(REPO)
    return here.upload_folder(repo_id=REPO, folder_path=folder).oid


def test_a_name_is_resolved_to_its_commit(pushed, here, hub, tmp_path, monkeypatch):
    named, tagged = load_model(f"transformers:{REPO}", device="cpu"), load_model(f"transformers:{REPO}@main")
    assert named.spec.revision == tagged.spec.revision == pushed
    assert str(named.spec).startswith(f"transformers:{REPO}@{pushed}?dtype=")
    found = embed_texts(named, ["a b", "b"])

    here.upload_file(repo_id=REPO, path_or_fileobj=b"news", path_in_repo="README.md")
    assert load_model(f"transformers:{REPO}").spec.revision != pushed
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    offline = load_model(f"transformers:{REPO}@{pushed}", device="cpu")
    assert (embed_texts(offline, ["a b", "b"]) == found).all()
    with pytest.raises(InputError, match=r"could not be had from the Hub; .*HF_HUB_OFFLINE is set.* 40 hexadecimal"):
        load_model(f"transformers:{REPO}")
    assert hub.count("GET", "resolve/.*/pytorch_model.bin") == hub.count("GET", "resolve/.*/onnx/") == 0
    assert hub.count("GET", "resolve/.*/config.json") > 0


def test_weights_of_torch_are_fetched_where_there_are_no_others(pushed, here, hub, tmp_path):
    folder = tmp_path / "model"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    here.create_repo("acme/older")
    here.upload_folder(repo_id="acme/older", folder_path=folder)
    found = [embed_texts(load_model(f"transformers:{repo}", device="cpu"), ["a b"]) for repo in (REPO, "acme/older")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert hub.count("GET", f"{REPO}/resolve/.*/pytorch_model.bin") == 0


def test_a_reward_model_is_taken_at_the_commit_of_its_name(pushed, here, tmp_path):
    scores = []
    for source in (REPO, f"{REPO}@main", f"{REPO}@{pushed}", str(tmp_path / "model")):
        model = AnyClipReward(source=source, device="cpu")
        scores.append(model.score([Image.new("RGB", (40, 30), "red")], ["a b"]).tolist())
        if source.startswith(REPO):
            assert str(model.spec) == f"clip:acme/tiny-clip@{pushed}?dtype=%22float32%22&library=%22transformers%22"
    np.testing.assert_allclose(scores, [scores[0]] * 4, atol=1e-6)
    with pytest.raises(InputError, match=r"'acme/absent@main' is no folder here .* there is no such"):
        AnyClipReward(source="acme/absent@main").score([Image.new("RGB", (40, 30))], ["a b"])


def test_what_open_clip_saved_is_known_by_its_config(pushed, here):
    assert full_name(REPO) == f"transformers:{REPO}@{pushed}"
    more = here.upload_file(repo_id=REPO, path_or_fileobj=b"{}", path_in_repo="open_clip_config.json").oid
    assert full_name(f"{REPO}@main") == f"open_clip:hf-hub:{REPO}@{more}"
    assert full_name(f"{REPO}@{pushed}") == f"transformers:{REPO}@{pushed}"


@pytest.mark.parametrize("name", [f"{REPO}@no-such-branch", "acme/absent", f"{REPO}@{'0' * 40}"])
def test_what_is_not_on_the_hub(name, pushed):
    with pytest.raises(InputError, match=rf"'{name}' is no folder here .* from the Hub; .* there is no such .*\(404"):
        load_model(f"transformers:{name}")


def test_a_hub_that_is_down(pushed, hub):
    hub.fail("GET", "/api/models/", "cut", times=9)
    with pytest.raises(HubError, match=rf"'{REPO}' is no folder here .*; .* the connection failed \("):
        load_model(f"transformers:{REPO}")


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (("open_clip_pytorch_model.bin", "open_clip_model.safetensors"), "open_clip_model.safetensors"),
        (("own.pt", "own.safetensors"), "own.safetensors"),
        (("own.pt", "sub/own.bin"), "own.pt"),
        (("README.md",), None),
    ],
)
def test_a_tag_of_open_clip_gives_one_file_of_its_repository(files, taken, here, hub, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")
    here.create_repo("acme/tagged")
    pushed = here.upload_folder(repo_id="acme/tagged", folder_path=tmp_path).oid
    file = "own.pt" if "own.pt" in files else ""
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda arch, tag: {"hf_hub": f"acme/tagged/{file}"})
    if taken is None:
        with pytest.raises(InputError, match="acme/tagged holds no weights of ViT-B-32@tag"):
            load_model("open_clip:ViT-B-32@tag")
    else:
        assert load_model("open_clip:ViT-B-32@tag").spec.revision == pushed
        assert [name for name in files if hub.count("GET", f"/resolve/{pushed}/{name}")] == [taken]
