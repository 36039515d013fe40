"""Images that should differ and do not are noticed."""

import dataclasses

import pytest

from tests.commands import invoke
from widespectrum import store
from widespectrum.images import encode
from widespectrum.repeats import repeated_images
from widespectrum.types import ImageRecord, ModelSpec, Prompt

PIL = pytest.importorskip("PIL.Image")

PROMPTS = [
    Prompt(prompt_id="", text=text, pair_id=str(pair), role=role, dimensions=("clarity",) * (role != "original"))
    for pair in range(3)
    for role, text in (("original", f"cup {pair}"), ("wide_spectrum", f"blurred cup {pair}"))
]
SPECS = {label: str(ModelSpec(adapter="flux", name=label, revision="v1")) for label in ("one", "two", "three")}


@pytest.fixture
def run(tmp_path):
    """Two generators that agree on originals only, and a third with the images of the first but for one."""
    store.append(tmp_path, "prompts", PROMPTS)
    rows = []
    for label in SPECS:
        for number, prompt in enumerate(PROMPTS):
            is_own = prompt.role == "wide_spectrum" and (label == "two" or (label == "three" and number == 5))
            rows.append(image(label, prompt, (number, 0, 9 if is_own and label == "two" else 7 if is_own else 0)))
    add(tmp_path, rows)
    return tmp_path


def image(label, prompt, color, seed=0):
    image_id, content = encode(PIL.new("RGB", (2, 2), color))
    about = {"prompt_id": prompt.prompt_id, "generator": label, "seed": seed, "status": "ok", "detail": ""}
    record = ImageRecord(image_id=image_id, width=2, height=2, path="x.png", **about)
    return record, {"bytes": content, "path": "x.png"}


def add(run, rows):
    store.append(run, "images", [record for record, _ in rows], [content for _, content in rows])


def test_images_of_another_generator(run):
    (sentence,) = repeated_images(run, SPECS)
    assert sentence.startswith("2 of 3 wide-spectrum images by three are the same, byte for byte, as those by one")


def test_one_image_for_several_prompts(run):
    add(run, [image("two", prompt, (200, 0, 0), seed=1) for prompt in PROMPTS])
    assert any(line.startswith("3 of 6 wide-spectrum images by two are there") for line in repeated_images(run, SPECS))


def test_generators_that_start_from_photographs_may_agree(run):
    specs = {
        label: str(dataclasses.replace(ModelSpec.parse(text), adapter="identity")) for label, text in SPECS.items()
    }
    assert repeated_images(run, specs) == []


def test_it_is_said_after_generating_and_nothing_is_where_images_differ(tmp_path):
    rows = [f"{prompt.pair_id},{prompt.role},{prompt.text},{'|'.join(prompt.dimensions)}" for prompt in PROMPTS]
    (tmp_path / "p.csv").write_text("\n".join(["pair_id,role,text,dimensions", *rows]))
    for folder, shades in (("a", (0, 0)), ("b", (0, 1)), ("c", (1, 0))):
        (tmp_path / folder).mkdir()
        for number, prompt in enumerate(PROMPTS):
            shade = shades[prompt.role == "wide_spectrum"]
            PIL.new("RGB", (2, 2), (number, 0, shade)).save(tmp_path / folder / f"{prompt.prompt_id}.png")

    def said(*folders):
        names = [f"folder[folder={tmp_path / folder},label={folder}]" for folder in folders]
        options = [part for name in names for part in ("--generator", name)]
        out = tmp_path / "-".join(folders)
        result = invoke("generate", *options, "--prompts", tmp_path / "p.csv", "--out", out)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "note:" not in said("a", "b")
    assert "note: 3 of 3 wide-spectrum images by c are the same, byte for byte, as those by a" in said("a", "c")
