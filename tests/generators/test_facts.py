"""What `widespectrum models show NAME` says of a generator."""

import re
import subprocess
import sys

import pytest

from tests.commands import invoke
from widespectrum.errors import UnknownNameError
from widespectrum.generators import BASES, GENERATORS
from widespectrum.generators.facts import MEANINGS, describe
from widespectrum.registry import options_of


def shown(name):
    """The options that are described."""
    _, _, below = describe(name).partition("\noptions (NAME[option=value,...])\n")
    return re.findall(r"^  (\w+) ", below, re.MULTILINE)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_option_is_described_in_lines_that_fit(name):
    text = describe(name)
    assert all(len(line) <= 120 and line == line.rstrip() for line in text.splitlines())
    assert text.startswith(f"{name}: ")
    assert " ".join(GENERATORS[name].summary.split()) in " ".join(text.split())
    declared = options_of(GENERATORS[name])
    assert set(declared) <= set(MEANINGS)
    method = GENERATORS[name].params.get("attention")
    hidden = {"vsf": ["scale", "tau", "blend"], "nag": ["alpha", "offset"]}.get(method, [])
    assert shown(name) == [option for option in declared if option not in hidden]
    assert "InputError" not in text


def test_every_meaning_is_of_an_option():
    assert {option for entry in GENERATORS.values() for option in options_of(entry)} | {"name"} == set(MEANINGS)


def test_what_is_said():
    texts = {name: " ".join(describe(name).split()) for name in GENERATORS}
    for name, words in {
        "flux-dev": ("FluxPipeline of diffusers", "FLUX.1-dev@3de623fc3c33e44ffbe2bad470d0f45bccf2eb21 on the Hub"),
        "alchemist": ("the commit of the day, which is recorded", "aligned or changed from: sd3.5-large"),
        "sdxl": ("long prompts: CLIP in pieces of 75 tokens", "dtype float16"),
        "dance-flux": ("transformer xzyhku/flux_hpsv2.1_dancegrpo/checkpoint-ema-300-0 another",),
        "flux-dev-vsf": (
            "attention: vsf, value sign flip: needs negative prompts",
            "guidance 0.0 guidance scale under",
        ),
        "flux-dev-lora": ("lora (needed)",),
        "image-edit": ("starts from: images", "above 0 up to 1"),
        "photo-effects": ("from 0 (none) to 4 (drastic)",),
        "nano-banana": ("OPENROUTER_API_KEY", 'needs: pip install "widespectrum[api]"'),
        "folder": ("folder (needed) where the images are",),
    }.items():
        assert all(each in texts[name] for each in words), texts[name]
    assert {name for name in texts if "aligned or changed from" in texts[name]} == set(BASES)


def test_nothing_has_to_be_installed():
    code = """
import sys
MISSING = {"torch", "diffusers", "transformers", "accelerate", "peft", "openai", "replicate", "httpx", "safetensors"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from widespectrum.generators import GENERATORS
from widespectrum.generators.facts import describe
print(sum("options" in describe(name) for name in GENERATORS))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(len(GENERATORS))), done.stderr


def test_the_command():
    done = invoke("models", "show", "z-image-turbo", "folder")
    assert (done.exit_code, done.stdout) == (0, f"{describe('z-image-turbo')}\n\n{describe('folder')}\n")
    assert invoke("models", "show", "z-imagine").exit_code == 2
    with pytest.raises(UnknownNameError, match="did you mean z-image"):
        describe("z-imagine")
