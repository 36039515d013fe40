"""Tiny models with random weights stand for the real ones; the library called directly is the oracle."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import PIL.Image
import pytest
import torch

from tests.image_text_models import save_model
from widespectrum.ava import embedding
from widespectrum.ava.embedding import EmbeddingModel, embed_images, embed_texts, load_model
from widespectrum.errors import InputError, ModelError, RunFolderError

TEXTS = ["a blurred photograph", "", "an ordinary street at night, in the rain, with nobody in it at all"]
RESULTS = ("embeddings.npy", "ids.npy", "failed.csv", "model.json")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: save_model(root / kind, kind) for kind in ("clip", "siglip")}


@pytest.fixture
def clip(folders):
    return load_model(f"transformers:{folders['clip']}", device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eleven photographs of various shapes, one 3 pixels high, one gray."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    shapes = [(40, 30 + 5 * n, 3) for n in range(9)] + [(3, 40, 3), (50, 50)]
    for number, shape in enumerate(shapes):
        PIL.Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return [(900 + number, folder / f"{number}.png") for number in range(len(shapes))]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(embedding, "_PART", 4)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def direct(folder, kind, files):
    """Embeddings of the images and of TEXTS by the library itself, all in one batch."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = processor([PIL.Image.open(path).convert("RGB") for _, path in files], return_tensors="pt")
    # CLIP as it is mostly called, without padding to the limit; SigLIP needs it.
    padding = True if kind == "clip" else "max_length"
    tokens = tokenizer(TEXTS, padding=padding, truncation=True, max_length=20, return_tensors="pt")
    with torch.inference_mode():
        images = model.get_image_features(**pixels).pooler_output.numpy()
        texts = model.get_text_features(**tokens).pooler_output.numpy()
    return unit(images), unit(texts)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_equals_the_library_called_directly(kind, folders, files, tmp_path):
    images, texts = direct(folders[kind], kind, files)
    model = load_model(f"transformers:{folders[kind]}", device="cpu")
    prepared = [model.prepare(embedding.open_photograph(path)) for _, path in files]
    np.testing.assert_allclose(unit(model.encode_images(prepared)), images, atol=1e-6)
    found = embed_texts(model, TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, texts, atol=1e-6)

    done = embed_images(model, files, tmp_path, batch_size=3, workers=2)
    assert (done.rows, done.dimension, done.failed) == (11, images.shape[1], 0)
    stored = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    assert (stored.dtype, stored.shape) == (np.float16, images.shape)
    # Half of the last place of float16 below 1, and what float32 may differ by.
    np.testing.assert_allclose(stored.astype(np.float32), images, atol=2**-12 + 1e-6)
    ids = np.load(tmp_path / "ids.npy")
    assert (ids.dtype, ids.tolist()) == (np.int64, list(range(900, 911)))
    assert (tmp_path / "failed.csv").read_text(encoding="utf-8") == "id,path,reason\n"
    about = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert about["model"].startswith(f"transformers:{kind}?dtype=%22float32%22&sha256=%22")
    assert about["packages"]["torch"].startswith(torch.__version__.partition("+")[0])


def test_an_image_s_embedding_does_not_depend_on_the_batch(clip, files):
    prepared = [clip.prepare(embedding.open_photograph(path)) for _, path in files[:4]]
    together = clip.encode_images(prepared)
    alone = np.concatenate([clip.encode_images([each]) for each in prepared])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(embed_texts(clip, TEXTS), embed_texts(clip, TEXTS, batch_size=1), atol=1e-6)


def test_bfloat16_is_near_and_has_another_spec(clip, folders, files, tmp_path):
    rough = load_model(f"transformers:{folders['clip']}", device="cpu", dtype="bfloat16")
    assert rough.spec != clip.spec
    for name, model in (("exact", clip), ("rough", rough)):
        embed_images(model, files[:2], tmp_path / name)
    exact, near = (np.load(tmp_path / name / "embeddings.npy").astype(float) for name in ("exact", "rough"))
    assert 0 < np.abs(exact - near).max() < 0.05


def test_what_cannot_be_opened_is_listed_and_left_out(clip, files, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(files[0][1].read_bytes()[:300])
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    PIL.Image.new("RGB", (1, 300)).save(tmp_path / "strip.png")
    PIL.Image.new("RGB", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 8000)
    bad = ["damaged.png", "text.png", "strip.png", "absent.png", "large.png"]
    mixed = [(str(image_id), path) for image_id, path in files[:3]]
    mixed[1:1] = [(name, tmp_path / name) for name in bad]
    done = embed_images(clip, mixed, tmp_path / "out", batch_size=2)
    assert (done.rows, done.failed) == (3, 5)
    assert np.load(tmp_path / "out" / "ids.npy").tolist() == ["900", "901", "902"]
    with (tmp_path / "out" / "failed.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == bad
    assert [row["path"] for row in rows] == [str(tmp_path / name) for name in bad]
    reasons = ["damaged or cut off", "not an image", "a strip of 1 x 300", "no photograph at", "too large"]
    for row, reason in zip(rows, reasons, strict=True):
        assert reason in row["reason"]
    alone = embed_images(clip, files[:3], tmp_path / "alone", batch_size=2)
    assert alone.rows == 3
    assert (tmp_path / "out" / "embeddings.npy").read_bytes() == (tmp_path / "alone" / "embeddings.npy").read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.image_text_models import save_model
from widespectrum.ava import embedding

folder, out, *paths = sys.argv[1:]
whole = embedding.write_file

def write_file(path, content):
    if path.name.startswith("part-000001"):
        path.with_name(f".tmp-{path.name}").write_bytes(content[:100])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, content)

embedding.write_file, embedding._PART = write_file, 4
model = embedding.load_model(f"transformers:{folder}", device="cpu")
embedding.embed_images(model, [(900 + n, Path(path)) for n, path in enumerate(paths)], Path(out), batch_size=2)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(clip, folders, files, tmp_path):
    command = [sys.executable, "-c", KILLED, folders["clip"], tmp_path / "cut", *(path for _, path in files)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    first = [(path, path.stat().st_ino) for path in (tmp_path / "cut" / "parts").glob("part-*")]
    assert [path.name[:11] for path, _ in first] == ["part-000000"]
    assert not (tmp_path / "cut" / "model.json").exists()
    for name in ("cut", "whole"):
        embed_images(clip, files, tmp_path / name, batch_size=2)
    assert [(path, path.stat().st_ino) for path, _ in first] == first
    for name in RESULTS:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_only_what_changed_is_embedded_again(clip, files, tmp_path):
    copies = [(image_id, tmp_path / path.name) for image_id, path in files]
    for (_, path), (_, copy) in zip(files, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    (tmp_path / "10.png").rename(tmp_path / "later.png")
    assert embed_images(clip, copies, tmp_path / "out", batch_size=2).failed == 1

    unloaded = EmbeddingModel(clip.spec, lambda: pytest.fail("the model was loaded for nothing"))
    assert embed_images(unloaded, copies, tmp_path / "out", batch_size=2).rows == 10
    before = {path.name for path in (tmp_path / "out" / "parts").glob("part-*")}
    (tmp_path / "later.png").rename(tmp_path / "10.png")
    assert embed_images(clip, copies, tmp_path / "out", batch_size=2).rows == 11
    new = {path.name[:11] for path in (tmp_path / "out" / "parts").glob("part-*") if path.name not in before}
    assert new == {"part-000002"}
    embed_images(clip, files, tmp_path / "fresh", batch_size=2)
    assert (tmp_path / "out" / "embeddings.npy").read_bytes() == (tmp_path / "fresh" / "embeddings.npy").read_bytes()


def test_a_folder_belongs_to_one_model_and_batch_size(clip, folders, files, tmp_path):
    embed_images(clip, files[:2], tmp_path, batch_size=2)
    with pytest.raises(RunFolderError, match=r"was begun with the batch size 2, now it is 3: go on with the first"):
        embed_images(clip, files[:2], tmp_path, batch_size=3)
    other = load_model(f"transformers:{folders['siglip']}", device="cpu")
    with pytest.raises(RunFolderError, match=r"was begun with the model transformers:clip\?.*, now it is .*:siglip"):
        embed_images(other, files[:2], tmp_path, batch_size=2)
    (part,) = (tmp_path / "parts").glob("part-*")
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(RunFolderError, match=r"part-000000.* is damaged .*: delete it and run again"):
        embed_images(clip, files[:2], tmp_path, batch_size=2)
    (tmp_path / "parts" / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"plan.json is damaged"):
        embed_images(clip, files[:2], tmp_path, batch_size=2)


def test_a_batch_that_does_not_fit_into_memory_may_be_made_smaller(clip, files, tmp_path, monkeypatch):
    def too_large(images):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(clip.towers.__class__, "images", property(lambda towers: too_large), raising=False)
        with pytest.raises(ModelError, match="not enough memory: take a smaller batch size"):
            embed_images(clip, files[:2], tmp_path, batch_size=2)
    assert embed_images(clip, files[:2], tmp_path, batch_size=1).rows == 2


def test_a_device_that_is_not_there(folders):
    for device in ("cpuu", "cuda:77"):
        with pytest.raises(
            InputError, match=rf"the device '{device}' cannot be used here \(.*\): expected cuda or cpu"
        ):
            load_model(f"transformers:{folders['clip']}", device=device).load()


def test_the_weights_are_part_of_the_spec(folders, tmp_path):
    copy = save_model(tmp_path / "clip", "clip", seed=1)
    again = save_model(tmp_path / "again" / "clip", "clip")
    specs = [load_model(f"transformers:{folder}").spec for folder in (folders["clip"], copy, again)]
    assert specs[0] != specs[1]
    assert specs[0] == specs[2]


def test_images_that_cannot_be_embedded_at_all(clip, files, tmp_path):
    absent = [(1, tmp_path / "a.png"), (2, tmp_path / "b.png")]
    with pytest.raises(InputError, match=r"none of 2 images could be opened; .*failed.csv says why"):
        embed_images(clip, absent, tmp_path / "out")
    assert (tmp_path / "out" / "failed.csv").read_text(encoding="utf-8").count("no photograph at") == 2
    for wrong, message in (
        ([], "no image to embed"),
        ([files[0], files[0]], "the image id 900 comes twice"),
        ([files[0], ("a", files[1][1])], "expected one kind"),
    ):
        with pytest.raises(InputError, match=message):
            embed_images(clip, wrong, tmp_path / "other")
    with pytest.raises(InputError, match="at least 1, got 0 and 4"):
        embed_images(clip, files, tmp_path / "other", batch_size=0)
    with pytest.raises(InputError, match="no text to embed"):
        embed_texts(clip, [])


def test_ids_may_be_numpy_s(clip, files, tmp_path):
    numbers = np.array([7, 9])
    embed_images(clip, [(numbers[n], files[n][1]) for n in range(2)], tmp_path)
    assert np.load(tmp_path / "ids.npy").tolist() == [7, 9]


def test_an_embedding_without_direction_is_the_model_s_fault(folders, files, tmp_path):
    import transformers

    folder = save_model(tmp_path / "broken", "clip")
    model = transformers.CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        model.visual_projection.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    broken = load_model(f"transformers:{folder}", device="cpu")
    with pytest.raises(ModelError, match=r"embedding of image 900 is zero or not finite"):
        embed_images(broken, files[:3], tmp_path / "out")


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def with_weights_cut_off(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


class Danger:
    def __reduce__(self):
        return print, ("unpickled",)


def with_a_pickle(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"text_projection.weight": Danger()}, folder / "pytorch_model.bin")


def with_a_weight_less(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_text_alone(folder):
    from transformers import CLIPModel

    CLIPModel.from_pretrained(folder).text_model.save_pretrained(folder)


def with_another_size(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["patch_size"] = 16
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def without_config(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            without_weights,
            r"has no weights: expected model\*.safetensors or pytorch_model\*.bin, as transf",
        ),
        (with_weights_cut_off, r"could not be loaded as an image-text model \("),
        (with_a_pickle, r"could not be loaded: it holds more than numbers; convert it to safetensors"),
        (with_a_weight_less, r"lacks weights .*, the first is text_projection.weight: copy"),
        (with_another_size, r"in another size, the first is vision_model.embeddings.patch_embedding.weight: copy"),
        (of_text_alone, r"holds a CLIPTextModel: expected a model of images and texts"),
        (without_config, r"could not be loaded as an image-text model \("),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_folder_that_is_no_such_model(change, expected, tmp_path, capfd):
    folder = save_model(tmp_path / "model", "clip")
    change(folder)
    with pytest.raises(InputError, match=expected):
        embed_texts(load_model(f"transformers:{folder}", device="cpu"), TEXTS)
    assert "unpickled" not in capfd.readouterr().out


def test_weights_saved_by_torch_are_read_as_numbers(clip, tmp_path):
    from safetensors.torch import load_file

    folder = save_model(tmp_path / "model", "clip")
    weights = load_file(folder / "model.safetensors")
    without_weights(folder)
    torch.save(weights, folder / "pytorch_model.bin")
    found = embed_texts(load_model(f"transformers:{folder}", device="cpu"), TEXTS)
    np.testing.assert_allclose(found, embed_texts(clip, TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip", r"'clip' is no image-text model: expected transformers:<folder or repo>\[@revision\], open_clip:"),
        ("timm:vit", "'timm:vit' is no image-text model"),
        ("transformers:", "'transformers:' is no image-text model"),
        ("transformers:org/absent", r"'org/absent' is no folder here and could not be had .* revision of 40 hex"),
        (f"transformers:org/absent@{'0' * 40}", r"absent@0+' is no folder here and could not be had"),
        ("transformers:/no/such/folder", r"'/no/such/folder' is no folder here"),
        pytest.param(
            "open_clip:ViT-B-32@x",
            r"needs open_clip: pip install 'widespectrum\[open-clip\]'",
            marks=pytest.mark.skipif(find_spec("open_clip") is not None, reason="open_clip is installed"),
        ),
    ],
)
def test_names_that_lead_nowhere(name, expected):
    with pytest.raises(InputError, match=expected):
        load_model(name)


def test_an_unknown_dtype(folders):
    with pytest.raises(InputError, match=r"a dtype of float32, bfloat16, float16; got 'int8'"):
        load_model(f"transformers:{folders['clip']}", dtype="int8")
