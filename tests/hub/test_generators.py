"""A generator of the Hub is taken at one commit, of which only what it reads is fetched."""

import errno
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import peft
import pytest
from diffusers import FluxPipeline, FluxTransformer2DModel
from huggingface_hub import constants

from tests.commands import invoke
from tests.generators import made_flux
from widespectrum import store
from widespectrum.errors import HubError, InputError
from widespectrum.generators import load_generator
from widespectrum.generators.sources import Source
from widespectrum.runs import read_manifest
from widespectrum.types import ImageRecord, ModelSpec, Prompt

# huggingface_hub calls httpx2 so itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "acme/tiny-flux"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "device": "cpu"}
DECOYS = (
    *("README.md", "dev_grid.jpg", "flux1-dev.safetensors", "ae.safetensors", "vae/diffusion_pytorch_model.bin"),
    *("vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16-00001-of-00002.safetensors"),
    *("text_encoder/model.safetensors.index.fp16.json", "text_encoder/flax_model.msgpack"),
    *("text_encoder/model.onnx", "text_encoder/openvino_model.bin", "text_encoder/openvino_model.xml"),
    *("transformer/diffusion_pytorch_model.non_ema.safetensors", "vae_1_0/diffusion_pytorch_model.safetensors"),
    *("vae_1_0/config.json", "text_encoders/t5xxl.safetensors"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_flux.checkpoint(tmp_path_factory.mktemp("flux"))


def push(api, folder, repo=REPO):
    api.create_repo(repo, exist_ok=True)
    return api.upload_folder(repo_id=repo, folder_path=folder).oid


@pytest.fixture
def pushed(here, made, tmp_path):
    """The commit of a tiny pipeline, among files that released ones have and nobody needs."""
    folder = Path(shutil.copytree(made, tmp_path / "flux"))
    for name in DECOYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not to be fetched")
    return push(here, folder)


def fetched(hub, repo=REPO):
    """The files whose content was asked for."""
    found = [
        entry.path.split("/resolve/")[1] for entry in hub.log if entry.method == "GET" and "/resolve/" in entry.path
    ]
    return {path.partition("/")[2] for path in found}


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def draw(generator):
    prompt = Prompt(prompt_id="", text="a red barn", pair_id="1", role="original")
    return np.asarray(generator.generate([prompt], seeds=[0])[0])


def test_a_pipeline_is_pinned_and_only_its_files_are_fetched(pushed, here, hub, made, monkeypatch):
    hub.log.clear()
    named = load_generator("flux-dev", repo=REPO, **SMALL)
    assert hub.log == []
    assert (named.spec.revision, named.spec.params["repo"]) == (pushed, REPO)
    image = draw(named)
    assert fetched(hub) == files(made)
    assert np.array_equal(image, draw(load_generator("flux-dev", checkpoint=made, **SMALL)))

    here.upload_file(repo_id=REPO, path_or_fileobj=b"news", path_in_repo="README.md")
    assert Source("flux-dev", None, repo=REPO).pin["revision"] != pushed
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    assert np.array_equal(image, draw(load_generator("flux-dev", repo=f"{REPO}@{pushed}", **SMALL)))
    assert hub.log == []
    with pytest.raises(InputError, match=r"^flux-dev: .*HF_HUB_OFFLINE is set.*\(or give a local copy as checkpoint="):
        draw(load_generator("flux-dev", repo=REPO, **SMALL))


def test_weights_of_parts_that_are_replaced_stay_there(pushed, hub, made):
    Source("x", None, repo=REPO, without=("transformer",)).path  # noqa: B018
    assert fetched(hub) == files(made) - {f"transformer/{WEIGHTS}"}


def test_loras_and_transformers_come_from_folders_and_files(here, hub, made, tmp_path):
    other = FluxTransformer2DModel.from_pretrained(made_flux.checkpoint(tmp_path / "other", seed=1) / "transformer")
    other.save_pretrained(tmp_path / "ema" / "checkpoint-300-0")
    (tmp_path / "ema" / "optimizer.safetensors").write_bytes(b"not to be fetched")
    adapted = peft.get_peft_model(other, peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "lora")
    (tmp_path / "lora" / "README.md").write_text("a card without front matter that has a blank line")
    commits = {name: push(here, tmp_path / name, f"acme/{name}") for name in ("ema", "lora", "other")}
    images = []
    for options, expected in (
        (
            {"transformer": "acme/ema/checkpoint-300-0"},
            {f"checkpoint-300-0/{name}" for name in ("config.json", WEIGHTS)},
        ),
        ({"transformer": f"acme/ema/checkpoint-300-0/{WEIGHTS}"}, set()),
        ({"transformer": "acme/other"}, {"model_index.json", "transformer/config.json", f"transformer/{WEIGHTS}"}),
        ({"transformer": str(tmp_path / "ema" / "checkpoint-300-0")}, set()),
        ({"lora": "acme/lora"}, {"adapter_config.json", "adapter_model.safetensors"}),
        ({"lora": "acme/lora/adapter_model.safetensors@main"}, set()),
        ({"lora": str(tmp_path / "lora")}, set()),
    ):
        hub.log.clear()
        generator = load_generator("flux-dev", checkpoint=made, **options, **SMALL)
        part, text = next(iter(options.items()))
        if text.startswith("acme"):
            name = text.removeprefix("acme/").partition("/")[0]
            assert generator.spec.params[part] == f"{text.removesuffix('@main')}@{commits[name]}"
        else:
            assert generator.spec.params[part].startswith("sha256:")
        images.append(draw(generator))
        assert fetched(hub) == expected
    assert all(np.array_equal(images[0], each) for each in images[1:4])
    assert all(np.array_equal(images[4], each) for each in images[5:])
    assert not np.array_equal(images[0], images[4])


def test_a_repository_that_is_no_whole_pipeline_says_how_to_give_it(here, made, tmp_path):
    folder = Path(shutil.copytree(made / "transformer", tmp_path / "half"))
    push(here, folder, "acme/half")
    with pytest.raises(
        InputError, match=r"has no model_index.json: .*; this is a transformer: give it as transformer="
    ):
        draw(load_generator("flux-dev", repo="acme/half", **SMALL))
    named = load_generator("flux-dev", checkpoint=made, transformer="acme/half", **SMALL)
    assert np.array_equal(draw(named), draw(load_generator("flux-dev", checkpoint=made, **SMALL)))


def test_the_network_of_a_folder_that_is_called_unet(here, hub, made, tmp_path):
    shutil.copytree(made / "transformer", tmp_path / "repo" / "unet")
    commit = push(here, tmp_path / "repo", "acme/dpo")
    source = Source("x", "acme/dpo", what="transformer")
    assert files(source.path) == {"unet/config.json", f"unet/{WEIGHTS}"}
    assert Source("x", "acme/dpo/unet", what="transformer").pinned == f"acme/dpo/unet@{commit}"


def test_an_incomplete_repository(here, made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "part"))
    (folder / "vae" / WEIGHTS).unlink()
    push(here, folder, "acme/part")
    with pytest.raises(
        InputError, match=rf"^flux-dev: incomplete download: .* lacks vae/{WEIGHTS}: download it again$"
    ):
        draw(load_generator("flux-dev", repo="acme/part", **SMALL))


def no_token(monkeypatch):
    monkeypatch.delenv("HF_TOKEN")


def path_of(repo=REPO, revision=None):
    return Source("flux-dev", None, repo=repo, revision=revision).path


def test_a_gated_repository(pushed, here, hub, monkeypatch):
    hub.repo("models", REPO).gated = True
    page = f"{hub.url}/{REPO}"
    with pytest.raises(InputError) as caught:
        path_of()
    terms = f"accept its terms at {page} with the account of your token, then run again"
    assert str(caught.value) == f"flux-dev: {REPO} is gated: {terms}"
    with monkeypatch.context() as stranger:
        no_token(stranger)
        with pytest.raises(InputError) as caught:
            path_of()
    login = f"accept its terms at {page}, run `hf auth login` or set HF_TOKEN, then run again"
    assert str(caught.value) == f"flux-dev: {REPO} is gated and there is no token: {login}"
    hub.repo("models", REPO).readers.add("writer")
    assert (path_of() / "model_index.json").is_file()


def test_a_token_that_was_made_without_gated_repositories(pushed, hub):
    said = "Please enable access to public gated repositories in your fine-grained token settings"
    hub.fail("HEAD", "/resolve/", 403, 9, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": said})
    with pytest.raises(InputError, match=rf"is gated: accept .* then run again \(if it has them: {said}"):
        path_of()


@pytest.mark.parametrize(
    ("repo", "revision", "token", "message"),
    [
        ("acme/absent", None, True, r"model acme/absent@main: there is no such repository for this token \(404"),
        (
            *("acme/absent", None, False),
            r"model acme/absent@main: there is no such repository, or it is private and there is no token \(401: .*\): "
            r"check its name, or run `hf auth login` or set HF_TOKEN$",
        ),
        (
            REPO,
            "no-such-branch",
            True,
            r"tiny-flux@no-such-branch: there is no such revision \(404.*\): check its name$",
        ),
        (REPO, "0" * 40, True, r"tiny-flux@0{40}: there is no such revision \(404.*\): check its name$"),
    ],
)
def test_what_is_not_there(pushed, monkeypatch, repo, revision, token, message):
    if not token:
        no_token(monkeypatch)
    with pytest.raises(InputError, match=rf"^flux-dev: .*{message}") as caught:
        path_of(repo, revision)
    assert "writ" not in str(caught.value).replace("writer", "")


STEPS = {"commit": ("GET", f"/api/models/{REPO}"), "list": ("GET", "/tree/"), "file": ("HEAD", "/resolve/.*/vae/")}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (
            503,
            HubError,
            r"the Hub has a fault of its own \(503\): the same command goes on .*\(or give a local copy as",
        ),
        ("cut", HubError, r"the connection failed \(\w+\): check the network; .*\(or give a local copy as checkpoint="),
        (403, InputError, r"the token may not read it \(403.*\): give one with read access in HF_TOKEN$"),
        (
            401,
            InputError,
            r"the Hub does not know the token \(401.*\): check HF_TOKEN, or run `hf auth login` again$",
        ),
    ],
)
def test_reading_fails_with_one_sentence_and_the_next_run_goes_on(
    pushed, hub, step, action, error, message, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fault = hub.fail(*STEPS[step], action, 99)
    with pytest.raises(error, match=rf"^flux-dev: model {REPO}@\w+: {message}") as caught:
        path_of()
    assert "\n" not in str(caught.value)
    assert "write" not in str(caught.value)
    fault.times = 0
    assert (path_of() / "vae" / WEIGHTS).is_file()


def test_a_download_that_was_cut_short(pushed, hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    hub.fail("GET", f"/resolve/.*/transformer/{WEIGHTS}", "lost", 99)
    with pytest.raises(HubError, match=rf"^flux-dev: model {REPO}@{pushed}: .*the same command goes on"):
        path_of(revision=pushed)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"incomplete download, and HF_HUB_OFFLINE is set: unset it, and run it again"):
        path_of(revision=pushed)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.faults.clear()
    hub.log.clear()
    assert FluxPipeline.from_pretrained(path_of(revision=pushed)) is not None
    assert fetched(hub) == {f"transformer/{WEIGHTS}"}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"no space is left for the download in \S+ \(HF_HOME moves it\): free some; the same command"),
        (errno.EACCES, r"the download cannot be written to \S+ \(HF_HOME moves it\): check its permissions"),
    ],
)
def test_where_it_cannot_be_stored(pushed, monkeypatch, number, message):
    def full(*arguments, **options):
        raise OSError(number, "no")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", full)
    with pytest.raises(InputError, match=rf"^flux-dev: model {REPO}@{pushed}: {message}"):
        path_of()


def test_a_run_stays_at_the_commits_with_which_it_was_begun(pushed, here, made, tmp_path):
    adapted = peft.get_peft_model(
        FluxTransformer2DModel.from_pretrained(made / "transformer"),
        peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False),
    )
    adapted.save_pretrained(tmp_path / "lora")
    (tmp_path / "lora" / "README.md").unlink()
    lora = push(here, tmp_path / "lora", "acme/lora")
    texts = "pair_id,role,text,dimensions\n1,original,a barn,\n1,wide_spectrum,a blurred barn,clarity\n"
    (tmp_path / "prompts.csv").write_text(texts)
    generator = f"flux-dev[repo={REPO},lora=acme/lora,dtype=float32,width=64,height=64,steps=2,device=cpu]"
    command = ("generate", "--generator", generator, "--prompts", tmp_path / "prompts.csv", "--out", tmp_path / "run")
    assert invoke(*command).exit_code == 0
    first = store.read(tmp_path / "run", "images").to_pylist()
    for part in store.parts(tmp_path / "run", "images"):
        part.unlink()
    store.append(tmp_path / "run", "images", [ImageRecord(**record(first[0]))], [first[0]["image"]])

    for repo in (REPO, "acme/lora"):
        here.upload_file(repo_id=repo, path_or_fileobj=b"{}", path_in_repo="news.json")
    again = invoke(*command)
    assert again.exit_code == 0, again.output
    assert store.read(tmp_path / "run", "images").to_pylist() == first
    spec = ModelSpec.parse(next(iter(read_manifest(tmp_path / "run").specs["generators"].values())))
    assert (spec.revision, spec.params["lora"]) == (pushed, f"acme/lora@{lora}")


def test_another_repository_does_not_stay_at_the_commit_of_the_first(here, pushed, made):
    other = push(here, made, "acme/other")
    for repo, commit in ((REPO, pushed), ("acme/other", other)):
        source = Source("flux-dev", None, repo=repo)
        source.keep_to(f"{REPO}@{pushed}")
        assert source.pin == {"revision": commit}
    lora = Source("flux-dev", "acme/other/part", what="lora")
    lora.keep_to(f"acme/other@{pushed}")
    assert lora.pinned == f"acme/other/part@{other}"


def record(row):
    return {name: value for name, value in row.items() if name != "image"}
