"""What every generator, reward model and judge must keep to; runs over every name in the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.chat_server import serving
from tests.generators import apis
from tests.generators.made import MADE as DRAWN
from tests.image_api_server import serving as serving_images
from tests.judges import endpoints, made_qwen3vl
from tests.rewards import made_visionreward
from tests.rewards.made import MADE
from tests.rewards.made_hpsv3 import own_instruction
from widespectrum import registry
from widespectrum.errors import InputError, UnknownNameError
from widespectrum.generators import GENERATORS, load_generator
from widespectrum.judges import JUDGES, load_judge
from widespectrum.prompts import load_prompt_set, open_photograph
from widespectrum.protocols import (
    Abstention,
    Generator,
    Judge,
    NeuralGenerator,
    PaidGenerator,
    PreparingRewardModel,
    Question,
    Refusal,
    RewardModel,
    TwoTowerRewardModel,
)
from widespectrum.registry import Entry
from widespectrum.rewards import REWARD_MODELS, load_reward_model
from widespectrum.types import DIMENSIONS, ModelSpec, Prompt

TABLES: dict[str, tuple[dict[str, Entry], Any]] = {
    "generator": (GENERATORS, load_generator),
    "reward model": (REWARD_MODELS, load_reward_model),
    "judge": (JUDGES, load_judge),
}
SCALES = {"pickscore": 100, "mps": 100, "imagereward": 10, "laion-aesthetic": 10, "hpsv3": 10}
"""How large the scores of a network become; 1 for the others."""

NAMES = [(kind, name) for kind, (table, _) in TABLES.items() for name in table]
SET = load_prompt_set("photographs")
PROMPTS = [prompt for prompt in SET.prompts if prompt.subset == "coffee" and "clarity" in prompt.pair_id]
PROMPTS += [prompt for prompt in SET.prompts if prompt.pair_id == "flower/emotion"]
PROMPTS = [
    replace(prompt, negative_prompt="sharp, cheerful") if prompt.role == "wide_spectrum" else prompt
    for prompt in PROMPTS
]
VENDORS = {
    "gpt-image-1.5": "openai",
    "gpt-image-1-mini": "openai",
    "nano-banana": "chat",
    "seedream-4": "replicate",
    "qwen-image-replicate": "replicate",
}


@pytest.fixture(scope="module")
def options_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """What a name needs beside itself: a reduced checkpoint, or a server that answers."""
    with ExitStack() as stack:
        server = stack.enter_context(serving([{"answer": "yes"}]))
        vendors = {name: stack.enter_context(serving_images([good])) for name, good in apis.GOOD.items()}
        stack.enter_context(own_instruction())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        apis.quick(patch)

        @cache
        def made(name: str) -> dict[str, Any]:
            if name in VENDORS:
                vendor = vendors[VENDORS[name]]
                return {"base_url": vendor.url if VENDORS[name] == "replicate" else vendor.openai}
            if name in ("vlm", "vlm-effects"):
                reply = endpoints.always("second") if name == "vlm" else endpoints.rating(effect_1=70, main_concept=90)
                return {"model": "tiny", "base_url": stack.enter_context(serving(reply)).url}
            if name == "majority":
                return {"judges": "a; b; c"}
            if name in ("blip-itm", "emotion"):
                return MADE["blip-l"](tmp_path_factory.mktemp(name))
            if name in ("qwen3-vl", "dimension"):
                return qwen(tmp_path_factory.mktemp(name), name)
            if name == "folder":
                return {"folder": str(saved_images(tmp_path_factory.mktemp(name)))}
            makers = {**MADE, **DRAWN}
            return makers[name](tmp_path_factory.mktemp(name)) if name in makers else {}

        def options(name: str) -> dict[str, Any]:
            if name == "visionreward":
                # A journal belongs to one model at a time.
                return {**made_visionreward.files(tmp_path_factory.mktemp(name)), "endpoint": server.endpoint}
            return made(name)

        yield options


def qwen(folder: Path, name: str) -> dict[str, Any]:
    """A tiny Qwen3-VL; as the judge of dimensions it is a merged model."""
    made = made_qwen3vl.checkpoint(folder / "model")
    return {"checkpoint" if name == "qwen3-vl" else "adapter": str(made), "dtype": "float32"}


@pytest.fixture
def available(options_of: Callable[[str], dict[str, Any]]) -> Callable[[str, str], Any]:
    def load(kind: str, name: str) -> Any:
        table, loader = TABLES[kind]
        if missing := registry.missing_packages(table[name]):
            pytest.skip(f"{', '.join(missing)} not installed")
        return loader(name, **options_of(name))

    return load


def saved_images(folder: Path) -> Path:
    for prompt, image in zip(PROMPTS, photographs(), strict=True):
        image.save(folder / f"{prompt.prompt_id}.png")
    return folder


def photographs() -> list[Image.Image]:
    opened = [open_photograph(SET.photographs[prompt.pair_id]) for prompt in PROMPTS]
    for image, prompt in zip(opened, PROMPTS, strict=True):
        image.thumbnail((96, 96))
        image.info["prompt"] = prompt.text
    return opened


def content(answer: Image.Image | Refusal) -> object:
    return answer if isinstance(answer, Refusal) else (answer.mode, answer.size, answer.tobytes())


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_spec_label_and_summary(kind: str, name: str, available: Any) -> None:
    model = available(kind, name)
    assert isinstance(model, {"generator": Generator, "reward model": RewardModel, "judge": Judge}[kind])
    assert ModelSpec.parse(str(model.spec)) == model.spec
    assert ModelSpec.parse(str(model.spec)).key == model.spec.key
    # A model is pinned by a commit, by the version of our own code, or by the hash of a local checkpoint.
    assert model.spec.revision or len(str(model.spec.params["sha256"])) == 64
    table, load = TABLES[kind]
    assert registry.label(name) == name
    assert available(kind, name).spec == model.spec
    assert table[name].summary
    assert bool(table[name].extra) == bool(table[name].packages)
    with pytest.raises(InputError, match="has no option 'nonsense'"):
        load(name, nonsense=1)


@pytest.mark.parametrize("kind", TABLES)
def test_names_do_not_share_a_spec(kind: str, available: Any) -> None:
    names = [name for other, name in NAMES if other == kind]
    assert len({available(kind, name).spec.key for name in names}) == len(names)


@pytest.mark.parametrize("kind", TABLES)
def test_an_unknown_name_lists_the_nearest(kind: str) -> None:
    table, load = TABLES[kind]
    name = next(iter(table))
    with pytest.raises(UnknownNameError, match=f"unknown {kind} .*{name}.*widespectrum models"):
        load(f"{name}x")


@pytest.mark.parametrize("name", GENERATORS)
def test_generators(name: str, available: Any) -> None:
    generator = available("generator", name)
    seeds = list(range(len(PROMPTS)))
    answers = generator.generate(PROMPTS, seeds=seeds, images=photographs())
    again = generator.generate(PROMPTS, seeds=seeds, images=photographs())
    singles = [
        answer
        for prompt, seed, image in zip(PROMPTS, seeds, photographs(), strict=True)
        for answer in generator.generate([prompt], seeds=[seed], images=[image])
    ]
    backward = generator.generate(PROMPTS[::-1], seeds=seeds[::-1], images=photographs()[::-1])[::-1]
    assert len(answers) == len(PROMPTS)
    assert any(isinstance(answer, Image.Image) for answer in answers)
    assert all((isinstance(answer, Refusal) and answer.reason) or answer.mode == "RGB" for answer in answers)
    for other in (again, singles, backward):
        assert [content(answer) for answer in other] == [content(answer) for answer in answers]
    assert generator.generate([], seeds=[], images=[]) == []
    assert isinstance(generator, NeuralGenerator) == (name in DRAWN)
    assert isinstance(generator, PaidGenerator) == (name in VENDORS)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_say_whether_they_need_images(name: str, available: Any) -> None:
    generator = available("generator", name)
    assert type(generator.needs_images) is bool
    if generator.needs_images:
        with pytest.raises(InputError, match=name):
            generator.generate(PROMPTS, seeds=[0] * len(PROMPTS))
    else:
        assert len(generator.generate(PROMPTS, seeds=[0] * len(PROMPTS))) == len(PROMPTS)


@pytest.mark.parametrize("name", REWARD_MODELS)
def test_reward_models(name: str, available: Any) -> None:
    model = available("reward model", name)
    images, texts = photographs(), [prompt.text for prompt in PROMPTS]
    values = model.score(images, texts)
    assert values.shape == (len(PROMPTS),)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert np.array_equal(model.score(images, texts), values)
    # Networks round differently in other batches.
    same = partial(np.allclose, rtol=0, atol=1e-6 * SCALES.get(name, 1) if name in MADE else 0)
    assert same(model.score(photographs(), texts), values)
    singles = np.concatenate([model.score([image], [text]) for image, text in zip(images, texts, strict=True)])
    assert same(singles, values)
    assert same(model.score(images[::-1], texts[::-1])[::-1], values)
    if name in MADE:
        fresh = available("reward model", name)
        assert np.array_equal(fresh.score(photographs(), texts), values)
        assert isinstance(model, PreparingRewardModel)
    with pytest.raises(InputError, match="expected at least one image and one prompt, got none"):
        model.score([], [])
    with pytest.raises(InputError, match="got 1 images and 0 prompts"):
        model.score(images[:1], [])
    if isinstance(model, TwoTowerRewardModel):
        combined = model.combine(model.encode_images(images), model.encode_texts(texts))
        assert same(combined, values)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
@pytest.mark.parametrize("name", REWARD_MODELS)
def test_reward_models_take_images_of_any_mode(name: str, mode: str, available: Any) -> None:
    model = available("reward model", name)
    image = photographs()[0].convert(mode)
    image.info["prompt"] = "a cup"
    assert np.isfinite(model.score([image], ["a cup"])).all()
    if mode == "RGBA":
        opaque = photographs()[0]
        opaque.info["prompt"] = "a cup"
        # Pillow rounds once more where it weighs colors with an alpha.
        limit = 0.02 * SCALES.get(name, 1) if name in MADE else 0
        assert np.allclose(model.score([image], ["a cup"]), model.score([opaque], ["a cup"]), rtol=0, atol=limit)


RATED = ("overall", "effects", "main concept", "content", "expressed emotion")
SAID = {"a": 1.0, "b": 1.0, "c": None}
SAD = Prompt(prompt_id="", text="a sad man", pair_id="man", role="wide_spectrum", dimensions=("emotion",), subset="sad")


@pytest.mark.parametrize("name", JUDGES)
def test_judges(name: str, available: Any) -> None:
    judge = available("judge", name)
    # What it is asked is known without making it.
    assert type(judge).dimensions == judge.dimensions
    assert judge.dimensions
    assert set(judge.dimensions) <= {*RATED, *DIMENSIONS}
    images = photographs()
    rewards = {model: (1.0, 0.0) for model in REWARD_MODELS}
    wide = [(prompt, image) for prompt, image in zip(PROMPTS, images, strict=True) if prompt.role == "wide_spectrum"]
    wide += [(SAD, images[0])] if name == "emotion" else []
    questions = [
        Question(prompt=prompt, image=image, rival=images[0], order=order, rewards=rewards, verdicts=SAID)
        for prompt, image in wide
        for order in ("first", "second")
        if "overall" in judge.dimensions
    ]
    questions += [
        Question(prompt=prompt, image=image, dimension=dimension)
        for prompt, image in wide
        for dimension in judge.dimensions
        if dimension != "overall"
    ]
    answers = judge.judge(questions)
    assert len(answers) == len(questions)
    assert all((isinstance(answer, Abstention) and answer.reason) or 0 <= answer.outcome <= 1 for answer in answers)
    assert not all(isinstance(answer, Abstention) for answer in answers)
    assert judge.judge(questions) == answers
    singles = [answer for question in questions for answer in judge.judge([question])]
    for one, other in zip(singles, answers, strict=True):
        assert type(one) is type(other)
        # A network computes a batch with other roundings than its singles.
        assert getattr(one, "outcome", 0) == pytest.approx(getattr(other, "outcome", 0), abs=1e-5)
    assert judge.judge([]) == []
