import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.judges import made_qwen3vl as made
from widespectrum.errors import InputError, WideSpectrumError
from widespectrum.judges import dimension_text, load_judge
from widespectrum.judges.dimension import DimensionJudge, dimension_conversation
from widespectrum.judges.qwen3vl import Qwen3VL
from widespectrum.judges.qwen3vl_files import quiet
from widespectrum.protocols import Abstention, Answer, Failure, Question
from widespectrum.types import DIMENSIONS, OPTIONAL_DIMENSIONS, ModelSpec, Prompt

LEVELS = Path(__file__).parents[3] / "shared" / "data" / "sources" / "visionreward" / "annotation_levels.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return made.checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lora(base, tmp_path_factory):
    return made.lora(tmp_path_factory.mktemp("lora"), base)


def loaded(adapter, **options):
    return load_judge("dimension", **{"adapter": adapter, "dtype": "float32", "max_pixels": 128 * 128, **options})


@pytest.fixture(scope="module")
def judge(base, lora):
    return loaded(lora, base=base, batch_size=11)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def questions(*images, text="a dark dog", dimensions=DIMENSIONS):
    prompt = Prompt(prompt_id="", text=text, pair_id="dog", role="wide_spectrum", dimensions=("clarity",))
    return [Question(prompt=prompt, image=image, dimension=name) for image in images for name in dimensions]


def test_eleven_questions_are_eleven_single_ones(judge):
    """Their texts have unequal lengths: what is read at a place of padding is not the same."""
    image = noise(90, 60)
    found = judge.judge(questions(image))
    assert len({len(judge.model.encode(*asked(each, image)).ids) for each in DIMENSIONS}) > 8
    for name, answer in zip(DIMENSIONS, found, strict=True):
        assert isinstance(answer, Answer)
        (single,) = judge.judge(questions(image, dimensions=[name]))
        assert answer.outcome == pytest.approx(single.outcome, abs=1e-5)
        assert answer.details["probabilities"] == pytest.approx(single.details["probabilities"], abs=1e-5)
        # The whole conversation by itself: no batch, no padding, nothing shared.
        logits = judge.model.next_logits([judge.model.encode(*asked(name, image))], batch_size=1)[0].double().numpy()
        shares = np.exp(logits - logits.max())
        three = shares[judge.model.token_ids(["0", "1", "2"])]
        assert answer.details["probabilities"] == pytest.approx(list(three / three.sum()), abs=1e-5)
        assert answer.details["mass"] == pytest.approx(three.sum() / shares.sum(), rel=1e-4)
        assert answer.outcome == pytest.approx((three[1] + 2 * three[2]) / three.sum() / 2, abs=1e-5)
    assert len({round(answer.outcome, 4) for answer in found}) == len(DIMENSIONS)


def asked(dimension, image):
    system, text = dimension_conversation(dimension)
    return system, [image, text]


def test_expected_value_over_three_tokens(base, lora):
    judge = loaded(lora, base=base)
    made.always(judge, _0=0.2, _1=0.3, _2=0.1)
    (answer,) = judge.judge(questions(noise(64, 64), dimensions=["clarity"]))
    assert answer.outcome == pytest.approx((0.3 + 2 * 0.1) / 0.6 / 2, rel=1e-5)
    assert answer.details["probabilities"] == pytest.approx([1 / 3, 1 / 2, 1 / 6], rel=1e-5)
    assert answer.details["mass"] == pytest.approx(0.6, rel=1e-5)
    assert (answer.confidence, answer.raw) == (pytest.approx(0.5, rel=1e-5), "1")
    assert answer.rationale == "J = 0.833"


def test_a_model_that_would_say_anything_else(base, lora):
    """Its three tokens are too unlikely for a float, and still have their shares."""
    judge = loaded(lora, base=base)
    made.always(judge, _0=0.2, _1=0.3, _2=0.1)
    judge.model.network.lm_head.bias[judge.tokens] -= 900
    (answer,) = judge.judge(questions(noise(64, 64), dimensions=["clarity"]))
    assert answer.details["probabilities"] == pytest.approx([1 / 3, 1 / 2, 1 / 6], rel=1e-3)
    assert answer.details["mass"] == 0


@pytest.mark.parametrize(("token", "outcome"), [("_0", 0.0), ("_2", 1.0)])
def test_the_ends_of_the_scale(base, lora, token, outcome):
    judge = loaded(lora, base=base)
    made.always(judge, **{token: 1 - 1e-12})
    (answer,) = judge.judge(questions(noise(64, 64), dimensions=["clarity"]))
    assert 0 <= answer.outcome <= 1
    assert answer.outcome == pytest.approx(outcome, abs=1e-9)


def test_it_is_blind_to_the_prompt_and_to_other_questions(judge):
    images = noise(90, 60), noise(64, 120, 1)
    found = judge.judge(questions(*images))
    assert found == judge.judge(questions(*images, text="1 1 1 <|image_pad|>"))
    mixed = questions(*images)[::-1]
    odd = [Question(prompt=mixed[0].prompt, image=noise(402, 2), dimension="clarity")]
    with_rival = [Question(prompt=mixed[0].prompt, image=images[0], rival=images[1], dimension="clarity")]
    unknown = questions(images[0], dimensions=["overall"])
    failed, *answers, abstained, other = judge.judge([*odd, *mixed, *with_rival, *unknown])
    assert isinstance(failed, Failure)
    assert failed.cause == "input"
    assert isinstance(abstained, Abstention)
    assert isinstance(other, Abstention)
    for one, two in zip(found, answers[::-1], strict=True):
        assert one.details["probabilities"] == pytest.approx(two.details["probabilities"], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 32])
def test_an_image_is_prepared_once_however_its_questions_are_cut(base, lora, batch_size, monkeypatch):
    judge = loaded(lora, base=base, batch_size=batch_size)
    images = noise(90, 60), noise(64, 120, 1)
    prepared = []
    picture = Qwen3VL.picture
    monkeypatch.setattr(Qwen3VL, "picture", lambda self, image: prepared.append(image) or picture(self, image))
    every = questions(*images)
    found = [answer for start in range(0, 22, 8) for answer in judge.judge(every[start : start + 8])]
    assert sorted(map(id, prepared)) == sorted(map(id, images))
    assert [answer.outcome for answer in found] == pytest.approx(
        [answer.outcome for answer in loaded(lora, base=base).judge(every)], abs=1e-5
    )


def test_a_whole_model_in_the_place_of_a_lora(base, judge, lora, tmp_path):
    merged = tmp_path / "merged"
    shutil.copytree(base, merged, ignore=shutil.ignore_patterns("*.safetensors"))
    with quiet():
        loaded(lora, base=base).model.model.merge_and_unload().save_pretrained(merged)
    whole = loaded(merged)
    one, two = (each.judge(questions(noise(90, 60))) for each in (whole, judge))
    assert [answer.outcome for answer in one] == pytest.approx([answer.outcome for answer in two], abs=1e-3)
    assert whole.spec != judge.spec
    with pytest.raises(InputError, match="is a whole model and no LoRA: leave out base="):
        loaded(merged, base=base)


def test_the_spec_says_what_changes_answers_and_nothing_else(base, lora, judge, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(lora, moved)
    settings = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "gone/away"}))
    assert judge.spec == loaded(moved, base=base).spec == loaded(lora).spec == ModelSpec.parse(str(judge.spec))
    assert judge.spec.revision == "v1"
    other = made.lora(tmp_path / "other", base, seed=2)
    (moved / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 3}))
    changed = [loaded(other), loaded(moved), loaded(lora, dtype="bfloat16"), loaded(lora, max_pixels=9999)]
    assert len({each.spec.key for each in [judge, *changed]}) == 5


def test_it_is_asked_as_it_was_trained(base, lora, tmp_path):
    trained = tmp_path / "trained"
    shutil.copytree(lora, trained)
    assert DimensionJudge(adapter=trained).max_pixels == dimension_text.MAX_PIXELS
    file = trained / dimension_text.RECIPE
    file.write_text(json.dumps(dimension_text.recipe(5000, DIMENSIONS)))
    assert DimensionJudge(adapter=trained).max_pixels == 5000
    assert DimensionJudge(adapter=trained, max_pixels=6000).max_pixels == 6000
    file.write_text(json.dumps({**dimension_text.recipe(5000, DIMENSIONS), "instruction": "0" * 16}))
    with pytest.raises(InputError, match="was trained with other instruction texts"):
        DimensionJudge(adapter=trained)
    file.write_text(json.dumps({**dimension_text.recipe(5000, DIMENSIONS), "max_pixels": "many"}))
    with pytest.raises(InputError, match="is no record of a dimension judge"):
        DimensionJudge(adapter=trained)


def test_it_abstains_on_what_it_was_not_taught(base, lora, tmp_path):
    trained = tmp_path / "trained"
    shutil.copytree(lora, trained)
    (trained / dimension_text.RECIPE).write_text(json.dumps(dimension_text.recipe(5000, ["clarity"])))
    image = Image.new("RGB", (64, 64), "gray")
    asked = questions(image, dimensions=["clarity", "emotion"])
    taught, untaught = loaded(trained, base=base).judge(asked)
    assert isinstance(taught, Answer)
    assert untaught == Abstention("this judge was not trained on emotion")
    (trained / dimension_text.RECIPE).write_text(json.dumps(dimension_text.recipe(5000, ["sharpness"])))
    with pytest.raises(InputError, match=r"no record of a dimension judge .*there is no dimension 'sharpness'"):
        DimensionJudge(adapter=trained)


def with_settings(lora, folder, **changes):
    shutil.copytree(lora, folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **changes}))
    return folder


@pytest.mark.parametrize(
    ("settings", "option", "repo", "revision"),
    [
        ({"base_model_name_or_path": None}, None, "Qwen/Qwen3-VL-4B-Instruct", None),
        ({"base_model_name_or_path": "a/b", "revision": "c" * 40}, None, "a/b", "c" * 40),
        ({"base_model_name_or_path": "a/b", "revision": "main"}, None, "a/b", None),
        ({"base_model_name_or_path": "a/b"}, "c/d", "c/d", None),
    ],
)
def test_the_base_is_on_the_hub(lora, tmp_path, settings, option, repo, revision):
    hub = DimensionJudge(adapter=with_settings(lora, tmp_path / "x", **settings), base=option).checkpoint.hub
    assert (hub.repo, hub.revision) == (repo, revision)


def test_without_the_hub_it_says_what_to_give(lora, tmp_path):
    judge = DimensionJudge(adapter=with_settings(lora, tmp_path / "x", base_model_name_or_path="a/b"))
    for ask in (lambda: judge.spec, judge.open):
        with pytest.raises(WideSpectrumError, match=r"the checkpoint of dimension could .* local .*folder as base="):
            ask()


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {"adapter": "nowhere"}, "dimension: there is no folder 'nowhere': give that of a trained judge"),
        ({}, {"adapter": ""}, "dimension: there is no folder ''"),
        ({}, {"base": "/no/such/place"}, "base is '/no/such/place', and there is no such folder: give the folder"),
        ({"base_model_name_or_path": "../gone/x"}, {}, "names '../gone/x' as its base, and there is no such folder"),
        ({"peft_type": "IA3"}, {}, "holds an adapter of type 'IA3': expected LORA"),
        ({"megatron_config": {"a": 1}}, {}, "holds a LoRA for Megatron: expected one of transformers"),
        ({}, {"max_pixels": 0}, "max_pixels must be a whole number of 1 or more; got 0"),
    ],
)
def test_wrong_options(lora, tmp_path, settings, options, message):
    folder = with_settings(lora, tmp_path / "x", **settings)
    with pytest.raises(InputError, match=message):
        loaded(**{"adapter": folder, **options})


def test_folders_that_are_no_judge(base, lora, tmp_path):
    with pytest.raises(InputError, match=r"holds neither adapter_config\.json nor config\.json: expected the folder"):
        loaded(tmp_path)
    pickled = with_settings(lora, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(InputError, match=r"lacks adapter_model\.safetensors: save the LoRA again"):
        loaded(pickled, base=base)


def test_every_dimension_has_a_question_of_its_own():
    names = dimension_text.dimensions_with_text()
    assert {*DIMENSIONS, *OPTIONAL_DIMENSIONS} < set(names)
    systems, texts = zip(*map(dimension_conversation, names), strict=True)
    assert len(set(systems)) == 1
    assert len(set(texts)) == len(names)
    for name, text in zip(names, texts, strict=True):
        lines = text.splitlines()
        assert lines[0].startswith(f"The property: {name}. ")
        assert [line[:3] for line in lines[1:4]] == ["0: ", "1: ", "2: "]
        assert lines[4:] == ["Answer with 0, 1 or 2 and nothing else."]
    with pytest.raises(InputError, match="no question for 'beauty': expected one of background, body"):
        dimension_conversation("beauty")


@pytest.mark.skipif(not LEVELS.is_file(), reason="no reference data")
def test_questions_are_about_what_visionreward_annotates():
    """All but the kind of harm, which has no order."""
    levels = json.loads(LEVELS.read_text())["levels"]
    assert set(dimension_text.dimensions_with_text()) == set(levels) - {"unsafe type"}
    assert all(min(map(int, each)) < 0 < max(map(int, each)) for name, each in levels.items() if name != "unsafe type")


def test_bfloat16_is_the_default_and_close(base, lora, judge):
    coarse = load_judge("dimension", adapter=lora, base=base, max_pixels=128 * 128)
    assert coarse.spec.params["dtype"] == "bfloat16"
    one, two = (each.judge(questions(noise(90, 60))) for each in (coarse, judge))
    assert all(math.isclose(a.outcome, b.outcome, abs_tol=0.1) for a, b in zip(one, two, strict=True))
