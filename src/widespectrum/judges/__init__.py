"""Judges: a question about one or two images → an answer."""

from __future__ import annotations

from widespectrum import registry
from widespectrum.protocols import Judge
from widespectrum.registry import Entry
from widespectrum.types import Parameter

__all__ = ["JUDGES", "load_judge"]

_ENDPOINT = ("openai", "jsonschema")
_WEIGHTS = ("torch", "transformers", "safetensors")

JUDGES: dict[str, Entry] = {
    "pixel": Entry(
        target="widespectrum.judges.pixel:PixelJudge",
        summary="measures the six dimensions that pixels can show, blind to the prompt; abstains on the others",
        extra="demo",
        packages=("skimage",),
    ),
    "rule": Entry(
        target="widespectrum.judges.rule:RuleJudge",
        summary="the image to which a reward model gives the higher score wins",
    ),
    "majority": Entry(
        target="widespectrum.judges.majority:MajorityJudge",
        summary="what more than half of several judges of the run say; a tie where no answer has so many",
        needs=("judges",),
    ),
    "vlm": Entry(
        target="widespectrum.judges.vlm:VLMJudge",
        summary="a vision-language model behind an endpoint says which image fits the prompt better, in both orders",
        extra="judges",
        packages=_ENDPOINT,
        needs=("model",),
    ),
    "vlm-effects": Entry(
        target="widespectrum.judges.effects:EffectJudge",
        summary="a vision-language model behind an endpoint says how far main concept and listed effects show",
        extra="judges",
        packages=_ENDPOINT,
        needs=("model",),
    ),
    "qwen3-vl": Entry(
        target="widespectrum.judges.local_vlm:LocalVLMJudge",
        summary="Qwen3-VL on this machine says which image fits the prompt better, with its probability",
        extra="judges",
        packages=_WEIGHTS,
    ),
    "dimension": Entry(
        target="widespectrum.judges.dimension:DimensionJudge",
        summary="J: Qwen3-VL with a LoRA rates an image on the eleven dimensions, blind to the prompt",
        extra="judges",
        packages=(*_WEIGHTS, "peft"),
        needs=("adapter",),
    ),
    "blip-itm": Entry(
        target="widespectrum.judges.content:ContentJudge",
        summary="content preservation: BLIP's probability that image and prompt match",
        extra="rewards",
        packages=_WEIGHTS,
    ),
    "emotion": Entry(
        target="widespectrum.judges.emotion:EmotionJudge",
        summary="BLIP's probability that the face shows the emotion of the prompt, over several wordings",
        extra="judges",
        packages=(*_WEIGHTS, "dlib"),
    ),
}


def load_judge(name: str, **options: Parameter) -> Judge:
    """The judge called `name`, made with `options`."""
    judge: Judge = registry.load("judge", JUDGES, name, options)
    return judge
