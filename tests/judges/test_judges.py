from __future__ import annotations

import pytest
from PIL import Image

from widespectrum.errors import ModelError
from widespectrum.generators import load_generator
from widespectrum.judges.pixel import PixelJudge, rate
from widespectrum.judges.rule import RuleJudge
from widespectrum.prompts import load_prompt_set, open_photograph
from widespectrum.protocols import Abstention, Answer, Question
from widespectrum.types import Prompt

SET = load_prompt_set("photographs")
WIDE = [p for p in SET.prompts if p.role == "wide_spectrum" and p.subset in ("coffee", "rocket")]


def wide(*dimensions: str) -> Prompt:
    return Prompt(prompt_id="", text="x", pair_id="p", role="wide_spectrum", dimensions=dimensions)


def flat(level: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (level, level, level))


@pytest.mark.parametrize("strength", [1, 4])
@pytest.mark.parametrize("prompt", WIDE, ids=lambda prompt: prompt.pair_id)
def test_pixel_sees_the_effects_and_abstains_on_the_others(prompt: Prompt, strength: int) -> None:
    photograph = open_photograph(SET.photographs[prompt.pair_id])
    generator = load_generator("photo-effects", strength=strength, size=160)
    (image,) = generator.generate([prompt], seeds=[0], images=[photograph])
    (original,) = load_generator("identity", size=160).generate([prompt], seeds=[0], images=[photograph])
    if not isinstance(image, Image.Image):
        (answer,) = PixelJudge().judge([Question(prompt=prompt, image=original, rival=original)])
        assert isinstance(answer, Abstention)
        return
    pairs = ((image, original), (original, image), (original, original))
    answers = PixelJudge().judge([Question(prompt=prompt, image=one, rival=two) for one, two in pairs])
    assert [answer.outcome for answer in answers] == [1, 0, 0.5]
    assert prompt.dimensions[0] in answers[0].rationale


def test_pixel_verdict_is_the_mean_over_the_requested_dimensions() -> None:
    bright, dark = flat(200), flat(30)
    (answer,) = PixelJudge().judge([Question(prompt=wide("color brightness"), image=dark, rival=bright)])
    assert answer == Answer(1.0, f"J: color brightness {rate(dark, 'color brightness'):.3f} against "
                                 f"{rate(bright, 'color brightness'):.3f}")  # fmt: skip
    (tie,) = PixelJudge().judge([Question(prompt=wide("color brightness"), image=flat(120), rival=flat(121))])
    assert tie.outcome == 0.5


@pytest.mark.parametrize("dimension", PixelJudge.dimensions[1:])
def test_pixel_ratings_are_half_of_j(dimension: str) -> None:
    photograph = open_photograph(SET.photographs["chelsea/clarity"])
    (answer,) = PixelJudge().judge([Question(prompt=wide("clarity"), image=photograph, dimension=dimension)])
    assert answer.outcome == rate(photograph, dimension) / 2
    assert f"{rate(photograph, dimension):.3f}" in answer.rationale


def test_pixel_abstains_where_it_cannot_tell() -> None:
    original = Prompt(prompt_id="", text="x", pair_id="p", role="original")
    questions = [
        Question(prompt=wide("clarity", "emotion"), image=flat(1), rival=flat(2)),
        Question(prompt=original, image=flat(1), rival=flat(2)),
        Question(prompt=wide("clarity"), image=flat(1), dimension="emotion"),
        Question(prompt=wide("clarity"), image=flat(1)),
        Question(prompt=wide("clarity"), image=flat(1), rival=flat(2), dimension="clarity"),
    ]
    answers = PixelJudge().judge(questions)
    assert all(isinstance(answer, Abstention) for answer in answers)
    assert answers[0].reason == "pixels cannot tell emotion"


def test_large_images_are_measured_at_the_working_size() -> None:
    photograph = open_photograph(SET.photographs["astronaut/clarity"])
    large = photograph.resize((1024, 1024), Image.Resampling.NEAREST)
    assert rate(large, "clarity") == pytest.approx(rate(photograph, "clarity"), rel=0.1)


def test_rule_follows_the_rewards() -> None:
    def verdict(image: float, rival: float) -> float:
        rewards = {"oracle": (image, rival)}
        question = Question(prompt=wide("clarity"), image=flat(1), rival=flat(2), rewards=rewards)
        return RuleJudge().judge([question])[0].outcome

    assert [verdict(2, 1), verdict(1, 2), verdict(1, 1)] == [1, 0, 0.5]


def test_rule_abstains_without_a_rival() -> None:
    alone = Question(prompt=wide("clarity"), image=flat(1), rewards={"oracle": (1.0, 2.0)})
    (answer,) = RuleJudge().judge([alone])
    assert isinstance(answer, Abstention)


def test_rule_waits_for_scores_that_are_missing() -> None:
    """A stored abstention would hide that the scores came later."""
    question = Question(prompt=wide("clarity"), image=flat(1), rival=flat(2), rewards={"sharpness": (1.0, 2.0)})
    with pytest.raises(ModelError, match="no scores of oracle for pair p: score it first, then judge again"):
        RuleJudge().judge([question])
    assert RuleJudge(reward_model="sharpness").judge([question])[0].outcome == 0
