"""The self-test of a generator, by the command that runs it."""

import re
import shutil

import pytest
import torch
from PIL import Image

from tests.commands import invoke, refused
from tests.generators import apis, made_flux, made_sdxl
from tests.image_api_server import Answer, Prediction, picture, serving
from widespectrum import store
from widespectrum.check import check_generator
from widespectrum.config import ModelChoice
from widespectrum.errors import ModelError
from widespectrum.generators import GENERATORS
from widespectrum.generators.diffusion import DiffusionGenerator
from widespectrum.images import encode
from widespectrum.prompts import load_prompt_set
from widespectrum.protocols import Failure, Refusal
from widespectrum.registry import Entry
from widespectrum.types import ModelSpec

TINY = "width=64,height=64,dtype=float32,device=cpu"
PAIR = [each.text for each in load_prompt_set("authored").prompts[:2]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_flux.checkpoint(tmp_path_factory.mktemp("flux") / "pipeline")


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(name):
    """What a check prints that succeeds: in lines that fit, and without a trace in the folder."""
    done = invoke("generate", "--check", name)
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    return done.stdout


def failed(name, code):
    """The one sentence of a check that fails."""
    done = invoke("generate", "--check", name)
    assert done.exit_code == code, done.output
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
    return done.stderr.removeprefix("error: ").strip()


def fields(text):
    """{first word of a line: the rest}, without the lines that go on."""
    return dict(re.findall(r"^  (\w+) +(.+)$", text, re.MULTILINE))


def drawn(text):
    """[(role, width, height, hash)]"""
    return re.findall(r"^  (original|wide_spectrum) +(\d+) x (\d+), sha256 ([0-9a-f]{16}), \d+\.\d s$", text, re.M)


def test_a_generator_with_weights(folder, workplace):
    name = f"flux-dev[checkpoint={folder},{TINY}]"
    text = checked(name)
    assert text.startswith("flux-dev[dtype=float32,height=64,width=64]\n")
    said = fields(text)
    assert {"dtype": "float32", "guidance": "3.5", "steps": "4", "width": "64"}.items() <= said.items()
    assert re.fullmatch("[0-9a-f]{64}", said["sha256"])
    assert re.fullmatch("[0-9a-f]{16}", said["spec"])
    assert [(role, *size) for role, *size, _ in drawn(text)] == [
        ("original", "64", "64"),
        ("wide_spectrum", "64", "64"),
    ]
    first, second = (found for *_, found in drawn(text))
    assert first != second
    for prompt in PAIR:
        assert any(line.strip().endswith(" ...") and prompt.startswith(line.strip()[:-4]) for line in text.splitlines())
    assert re.search(r"^  opened in \d+\.\d s on cpu$", text, re.M)
    assert "\n  drawn twice: the same pixels\n" in text
    assert re.search(r"^  peak memory \d+\.\d\d GB$", text, re.M)
    assert drawn(checked(name)) == drawn(text)
    assert list(workplace.iterdir()) == []


def test_the_memory_of_one_is_free_for_the_next(folder, monkeypatch):
    done = []
    for what in ("open", "close"):
        own = getattr(DiffusionGenerator, what)
        monkeypatch.setattr(DiffusionGenerator, what, lambda self, own=own, what=what: done.append(what) or own(self))
    name = f"flux-dev[checkpoint={folder},{TINY},steps=1]"
    assert invoke("generate", "--check", name, "--check", name).exit_code == 0
    assert done == ["open", "close"] * 2


def test_fewer_steps_are_drawn_and_said(folder, monkeypatch):
    steps = []
    call = DiffusionGenerator._call
    monkeypatch.setattr(
        DiffusionGenerator, "_call", lambda self, *given, **more: steps.append(self.steps) or call(self, *given, **more)
    )
    text = checked(f"flux-dev[checkpoint={folder},{TINY}]")
    assert steps == [4] * 4
    (again,) = re.findall(r'^  drawn in 4 steps to be quick; in all 32: --check "(.*)"$', text, re.M)
    steps.clear()
    whole = checked(again)
    assert steps == [32] * 4
    assert "to be quick" not in whole
    assert fields(whole)["steps"] == "32"
    assert drawn(whole) != drawn(text)
    steps.clear()
    assert "to be quick" not in checked(f"flux-dev[checkpoint={folder},{TINY},steps=2]")
    assert steps == [2] * 4


def test_the_image_is_that_of_a_run(folder, workplace):
    name = f"flux-dev[checkpoint={folder},{TINY},steps=2]"
    said = drawn(checked(name))
    (workplace / "two.csv").write_text(
        "pair_id,role,text,dimensions\n"
        + "".join(
            f'{each.pair_id},{each.role},"{each.text}",{"|".join(each.dimensions)}\n'
            for each in load_prompt_set("authored").prompts[:2]
        )
    )
    done = invoke("generate", "--generator", name, "--prompts", "two.csv", "--out", "run")
    assert done.exit_code == 0, done.output
    kept = store.read(workplace / "run", "images")["image_id"].to_pylist()
    assert sorted(each[:16] for each in kept) == sorted(found for *_, found in said)


def test_a_checkpoint_with_few_steps_keeps_them(tmp_path):
    from tests.generators import made_flux2_klein

    folder = made_flux2_klein.checkpoint(tmp_path / "klein")
    text = checked(f"flux2-klein-9b[checkpoint={folder},{TINY}]")
    assert fields(text)["steps"] == "4"
    assert "to be quick" not in text


def test_an_edit_starts_from_a_photograph(folder):
    text = checked(f"image-edit[checkpoint={folder},{TINY}]")
    assert fields(text)["edit"] == "FluxImg2ImgPipeline"
    assert len(drawn(text)) == 2
    assert "drawn twice: the same pixels" in text
    # A weak edit draws few of its steps.
    weak = checked(f"image-edit[checkpoint={folder},{TINY},strength=0.2]")
    assert fields(weak)["steps"] == "20"
    assert "drawn in 20 steps to be quick; in all 32: " in weak
    assert "to be quick" not in checked(f"image-edit[checkpoint={folder},{TINY},strength=0.1]")


def test_a_method_is_tried_with_its_negative_prompts(folder):
    plain, changed = (drawn(checked(f"{name}[checkpoint={folder},{TINY}]")) for name in ("flux-dev", "flux-dev-nag"))
    assert plain[0] == changed[0]
    assert plain[1] != changed[1]


def test_generators_without_weights():
    text = checked("identity[size=48]")
    (_, *size, first), (_, *_, second) = drawn(text)
    assert max(map(int, size)) == 48
    assert first == second
    assert "peak memory" not in text
    assert "opened" not in text
    assert "drawn twice: the same pixels" in text
    text = checked("photo-effects[strength=4]")
    assert fields(text)["strength"] == "4"
    assert len({found for *_, found in drawn(text)}) == 2


# APIs


@pytest.fixture
def keys(monkeypatch):
    apis.quick(monkeypatch)


def test_an_api_without_seeds_is_asked_once_for_each_prompt(keys):
    with serving([apis.GOOD["openai"]]) as server:
        text = checked(f"gpt-image-1.5[base_url={server.openai},price=0.2]")
    assert [each.prompt for each in server.requests] == PAIR
    assert "  2 API calls, about $0.40\n" in text
    assert text.index("API calls") < text.index("original ")
    assert "drawn once: this API takes no seed" in text
    assert [(width, height) for _, width, height, _ in drawn(text)] == [("8", "6")] * 2
    assert "drawn twice" not in text and "peak memory" not in text
    assert apis.KEY not in text


def test_an_api_with_seeds_is_asked_twice(keys):
    with serving([Prediction(files=[picture()], polls=0)]) as server:
        text = checked(f"qwen-image-replicate[base_url={server.url},price=0.01]")
    assert [each.prompt for each in server.requests] == PAIR * 2
    assert len({each.body["input"]["seed"] for each in server.requests}) == 1
    assert "  4 API calls, about $0.04\n" in text
    assert "drawn twice: the same pixels" in text


def test_an_api_that_does_not_keep_to_its_seed(keys):
    colors = iter([(9, 9, 9), (10, 10, 10), (9, 9, 9), (10, 60, 10)])
    with serving(lambda received: Prediction(files=[picture(next(colors))], polls=0)) as server:
        sentence = failed(f"qwen-image-replicate[base_url={server.url}]", 1)
    assert sentence == (
        "qwen-image-replicate does not repeat itself under the wide_spectrum prompt: drawn twice from one seed, its "
        "pixels differ by up to 50 of 255"
    )


def test_a_refusal_and_an_error_of_an_api(keys, monkeypatch):
    with serving([apis.GOOD["chat"], apis.REFUSED["chat"]]) as server:
        sentence = failed(f"nano-banana[base_url={server.openai}]", 1)
    assert sentence == f"nano-banana refused {PAIR[1]!r}: I cannot draw that."
    with serving([Answer("busy", 503)]) as server:
        sentence = failed(f"nano-banana[base_url={server.openai},attempts=1]", 1)
    assert sentence.startswith(f"nano-banana did not draw {PAIR[0]!r}: ")
    monkeypatch.delenv("OPENROUTER_API_KEY")
    assert "set OPENROUTER_API_KEY in the environment" in failed("nano-banana", 2)


# what goes wrong


class Odd:
    """Its answers are those it is given, one after another."""

    needs_images = False
    spec = ModelSpec(adapter="made", name="odd", revision="v1")
    answers = ()

    def __init__(self):
        self.left = iter(self.answers)

    def generate(self, prompts, *, seeds, images=None):
        return [next(self.left) for _ in prompts]


GREY, LIGHT, WIDE = Image.new("RGB", (4, 4), "grey"), Image.new("RGB", (4, 4), "silver"), Image.new("RGB", (8, 4))


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ((GREY, LIGHT, LIGHT, LIGHT), 1, "under the original prompt: .*, its pixels differ by up to 64 of 255$"),
        ((GREY, LIGHT, GREY, WIDE), 1, "under the wide_spectrum prompt: .* differ by up to 255 of 255$"),
        ((GREY, LIGHT, GREY, LIGHT.convert("L")), 1, "under the wide_spectrum prompt: "),
        ((Refusal("not this"),), 1, "^odd refused '.*': not this$"),
        ((GREY, Failure("no numbers", "model")), 1, "^odd did not draw '.*': no numbers$"),
        ((GREY, Failure("too long", "input")), 2, "^odd did not draw '.*': too long$"),
        ((GREY, LIGHT, GREY, Failure("no numbers", "model")), 1, "^odd did not draw '.*': no numbers$"),
    ],
)
def test_what_is_found(monkeypatch, answers, code, message):
    monkeypatch.setitem(GENERATORS, "odd", Entry(target=f"{__name__}:Odd", summary=""))
    monkeypatch.setattr(Odd, "answers", answers)
    assert re.search(message, failed("odd", code))


def test_a_pipeline_that_is_not_deterministic(folder, monkeypatch):
    call = DiffusionGenerator._call

    def disturbed(self, generators, **arguments):
        torch.rand(1, generator=generators[0]) if next(count) == 3 else None
        return call(self, generators, **arguments)

    count = iter(range(4))
    monkeypatch.setattr(DiffusionGenerator, "_call", disturbed)
    with pytest.raises(ModelError, match=r"^flux-dev does not repeat itself under the wide_spectrum prompt"):
        check_generator(
            ModelChoice(
                name="flux-dev", options={"checkpoint": str(folder), "width": 64, "height": 64, "dtype": "float32"}
            ),
            lambda line: None,
        )


def test_what_cannot_be_tried(folder, workplace):
    def refuse(name):
        return refused(workplace, "generate", "--check", name)

    assert refuse("flux-dex").startswith("unknown generator 'flux-dex': did you mean flux-dev")
    assert refuse("flux-dev[steps=0]") == "flux-dev: steps must be a whole number of 1 or more; got 0"
    assert "has no option 'stepz'" in refuse("flux-dev[stepz=1]")
    assert "needs the option 'lora'" in refuse(f"flux-dev-lora[checkpoint={folder}]")
    other = made_sdxl.checkpoint(workplace / "sdxl")
    assert "runs checkpoints of FluxPipeline" in failed(f"flux-dev[checkpoint={other},{TINY}]", 2)
    shutil.copytree(folder, workplace / "cut")
    (workplace / "cut" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    sentence = failed(f"flux-dev[checkpoint=cut,{TINY}]", 2)
    assert "incomplete download: cut lacks vae/" in sentence


def test_the_hash_is_that_under_which_a_run_keeps_the_image(monkeypatch):
    monkeypatch.setitem(GENERATORS, "odd", Entry(target=f"{__name__}:Odd", summary=""))
    monkeypatch.setattr(Odd, "answers", (GREY, LIGHT, GREY, LIGHT))
    assert [found for *_, found in drawn(checked("odd"))] == [encode(each)[0][:16] for each in (GREY, LIGHT)]
