"""The table of generators: every system of the benchmark under the settings that were published for it."""

import inspect
import re

import pytest

from tests.commands import invoke
from tests.generators.made import MADE
from widespectrum import results
from widespectrum.generators import BASES, GENERATORS, known_bases, load_generator
from widespectrum.registry import options_of
from widespectrum.types import ModelSpec

ROWS = {
    "flux-dev": ("black-forest-labs/FLUX.1-dev", "Flux", 32, 3.5),
    "dance-flux": ("black-forest-labs/FLUX.1-dev", "Flux", 32, 3.5),
    "pref-flux": ("CodeGoat24/FLUX.1-dev-PrefGRPO", "Flux", 32, 3.5),
    "flux-krea": ("black-forest-labs/FLUX.1-Krea-dev", "Flux", 32, 3.5),
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXL", 50, 5.0),
    "playground-v2.5": ("playgroundai/playground-v2.5-1024px-aesthetic", "StableDiffusionXL", 50, 3.0),
    "sd3.5-medium": ("stabilityai/stable-diffusion-3.5-medium", "StableDiffusion3", 40, 4.0),
    "sd3.5m-geneval": ("stabilityai/stable-diffusion-3.5-medium", "StableDiffusion3", 40, 4.0),
    "sd3.5m-pickscore": ("stabilityai/stable-diffusion-3.5-medium", "StableDiffusion3", 40, 4.0),
    "sd3.5-large": ("stabilityai/stable-diffusion-3.5-large", "StableDiffusion3", 40, 4.0),
    "qwen-image": ("Qwen/Qwen-Image", "QwenImage", 50, 4.0),
    "flux2-klein-9b": ("black-forest-labs/FLUX.2-klein-9B", "Flux2Klein", 4, 1.0),
    "z-image": ("Tongyi-MAI/Z-Image", "ZImage", 50, 3.5),
    "z-image-turbo": ("Tongyi-MAI/Z-Image-Turbo", "ZImage", 8, 0.0),
    "glm-image": ("zai-org/GLM-Image", "GlmImage", 50, 5.0),
    "alchemist": ("yandex/stable-diffusion-3.5-large-alchemist", "StableDiffusion3", 40, 4.0),
    "longcat-image": ("meituan-longcat/LongCat-Image", "LongCatImage", 50, 4.0),
    "flux-dev-vsf": ("black-forest-labs/FLUX.1-dev", "Flux", 32, 0.0),
    "flux-dev-nag": ("black-forest-labs/FLUX.1-dev", "Flux", 32, 3.5),
    "flux-krea-nag": ("black-forest-labs/FLUX.1-Krea-dev", "Flux", 32, 3.5),
    "flux-dev-lora": ("black-forest-labs/FLUX.1-dev", "Flux", 32, 3.5),
    "sd1.5": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusion1", 64, 7.5),
    "sd1.5-dpo": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusion1", 64, 7.5),
    "flux-schnell": ("black-forest-labs/FLUX.1-schnell", "Flux", 8, 0.0),
    "image-edit": ("black-forest-labs/FLUX.1-dev", "ImageEdit", 32, 3.5),
}
"""name: repository, family, steps, guidance."""

EXTRAS = {
    "dance-flux": ("transformer", "xzyhku/flux_hpsv2.1_dancegrpo/checkpoint-ema-300-0"),
    "sd3.5m-geneval": ("lora", "jieliu/SD3.5M-FlowGRPO-GenEval"),
    "sd3.5m-pickscore": ("lora", "jieliu/SD3.5M-FlowGRPO-PickScore"),
    "sd1.5-dpo": ("transformer", "mhdang/dpo-sd1.5-text2image-v1/unet"),
}
APIS = {
    "nano-banana": ("ChatImages", "google/gemini-2.5-flash-image"),
    "gpt-image-1.5": ("OpenAIImages", "gpt-image-1.5"),
    "gpt-image-1-mini": ("OpenAIImages", "gpt-image-1-mini"),
    "seedream-4": ("ReplicateImages", "bytedance/seedream-4"),
    "qwen-image-replicate": ("ReplicateImages", "qwen/qwen-image"),
}
ALIGNED = {
    "dance-flux": "flux-dev",
    "pref-flux": "flux-dev",
    "flux-dev-lora": "flux-dev",
    "flux-dev-vsf": "flux-dev",
    "flux-dev-nag": "flux-dev",
    "flux-krea-nag": "flux-krea",
    "playground-v2.5": "sdxl",
    "sd3.5m-geneval": "sd3.5-medium",
    "sd3.5m-pickscore": "sd3.5-medium",
    "alchemist": "sd3.5-large",
    "sd1.5-dpo": "sd1.5",
}
ANY_COMMIT = "0" * 40


def pinned(text):
    """A place on the Hub at a commit, so that nobody has to be asked for it."""
    return text if "@" in text else f"{text}@{ANY_COMMIT}"


def spec_of(name, **options):
    """The spec of an entry as it is, without the Hub."""
    given = options_of(GENERATORS[name])
    places = {key: pinned(given[key]) for key in ("repo", "lora", "transformer") if isinstance(given[key], str)}
    needed = {"lora": pinned("org/lora")} if name == "flux-dev-lora" else {}
    return load_generator(
        name, **{key: text for key, text in places.items() if text[0] != "@"}, **needed, **options
    ).spec


def test_the_table_is_complete():
    assert set(GENERATORS) == {*ROWS, *APIS, "folder", "photo-effects", "identity"}
    assert set(MADE) == set(ROWS)
    assert BASES == ALIGNED
    assert set(EXTRAS) <= set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_settings_are_the_published_ones(name):
    entry, (repo, family, steps, guidance) = GENERATORS[name], ROWS[name]
    given = options_of(entry)
    assert entry.target.partition(":")[2] == family
    assert (given["repo"].partition("@")[0], given["steps"], given["guidance"]) == (repo, steps, guidance)
    assert type(given["steps"]) is int
    side = 512 if family == "StableDiffusion1" else 1024
    assert (given["width"], given["height"]) == (side, side)
    changed = {key: given[key].partition("@")[0] for key in ("lora", "transformer") if isinstance(given[key], str)}
    option, place = EXTRAS.get(name, ("lora", ""))
    assert {key: text for key, text in changed.items() if text} == ({option: place} if place else {})
    assert given["lora_weight"] == 1.0


@pytest.mark.parametrize("name", [name for name in ROWS if name != "image-edit"])
def test_the_spec_says_the_settings(name):
    repo, _, steps, guidance = ROWS[name]
    spec = spec_of(name)
    assert spec.name == name
    assert re.fullmatch("[0-9a-f]{40}", spec.revision)
    wanted = {"repo": repo, "steps": steps, "guidance": guidance}
    assert wanted.items() <= spec.params.items()
    assert ModelSpec.parse(str(spec)) == spec


@pytest.mark.parametrize("name", APIS)
def test_apis(name):
    family, model = APIS[name]
    assert GENERATORS[name].target.partition(":")[2] == family
    spec = load_generator(name).spec
    assert (spec.name, spec.params["model"]) == (name, model)
    if family == "OpenAIImages":
        assert (spec.params["quality"], spec.params["size"]) == ("high", "1024x1024")
    asked = {
        "qwen-image-replicate": {"num_inference_steps": 50, "guidance": 4, "enhance_prompt": False, "go_fast": True},
        "seedream-4": {"size": "1K", "sequential_image_generation": "disabled"},
    }
    assert asked.get(name, {}).items() <= spec.params.items()


def test_methods_have_their_authors_settings():
    vsf, nag = spec_of("flux-dev-vsf").params, spec_of("flux-krea-nag").params
    assert {"attention": "vsf", "alpha": 2.0, "offset": 0.0, "original_guidance": 3.5}.items() <= vsf.items()
    assert {"attention": "nag", "scale": 4.0, "tau": 5.0, "blend": 0.4, "original_guidance": 3.5}.items() <= nag.items()
    assert "256 with vsf" in vsf["long_prompts"]
    for scale in (10, 15):
        assert spec_of("flux-dev-nag", scale=scale).params["scale"] == scale


@pytest.mark.parametrize("name", GENERATORS)
def test_settings_are_options_of_the_constructor(name):
    entry = GENERATORS[name]
    given = options_of(entry)
    module, _, attribute = entry.target.partition(":")
    family = getattr(__import__(module, fromlist=[attribute]), attribute)
    parameters = inspect.signature(family).parameters
    assert {*entry.params, *entry.defaults, *entry.needs} <= set(parameters)
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters.values())
    assert not {*entry.params} & {*given}
    assert entry.summary and "\n" not in entry.summary
    text = " ".join(str(value) for value in {**entry.params, **entry.defaults}.values())
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in re.findall(r"@(\S*)", text))


@pytest.mark.parametrize("name", ALIGNED)
def test_a_generator_and_its_base_differ_in_nothing_but_what_was_changed(name):
    own, base = (dict(spec_of(each).params) for each in (name, ALIGNED[name]))
    changed = {key for key in own.keys() | base.keys() if own.get(key) != base.get(key)}
    allowed = {
        "playground-v2.5": {"repo", "guidance"},
        "pref-flux": {"repo"},
        "alchemist": {"repo"},
        "dance-flux": {"transformer"},
        "sd1.5-dpo": {"transformer"},
        "flux-dev-vsf": {"guidance", "original_guidance", "attention", "alpha", "offset", "long_prompts"},
    }
    nag = {"original_guidance", "attention", "scale", "tau", "blend"}
    assert changed == allowed.get(name, nag if name.endswith("-nag") else {"lora", "lora_weight"})
    # What is drawn under p_o is the base's own.
    assert own.get("original_guidance", own["guidance"]) == base["guidance"] or name == "playground-v2.5"


def test_bases_are_found_where_both_are_in_a_run():
    assert known_bases(["flux-dev", "dance-flux", "sdxl", "alchemist"]) == {"dance-flux": "flux-dev"}
    changed = ["flux-dev-lora[lora_weight=0.5,steps=8]", "flux-dev-vsf[alpha=1.5]", "flux-dev[steps=8]", "flux-dev"]
    assert known_bases(changed) == {changed[0]: changed[2], changed[1]: changed[3]}
    assert known_bases([]) == known_bases(["dance-flux"]) == known_bases(["flux-dev[steps=8]", "dance-flux"]) == {}
    assert known_bases(GENERATORS) == ALIGNED
    assert set(ALIGNED.values()) <= set(GENERATORS)


def test_a_run_compares_an_aligned_generator_with_its_base_unasked(tmp_path):
    made = {name: MADE[name](tmp_path / name) for name in ("flux-dev", "dance-flux")}
    (tmp_path / "prompts.csv").write_text(
        "pair_id,role,text,dimensions\n"
        + "".join(
            f'p{number},original,"a {number}",\np{number},wide_spectrum,"a {number}, blurred",clarity\n'
            for number in range(3)
        )
    )
    tables = "".join(
        "[[generators]]\n"
        + "".join(f"{key} = {value!r}\n" for key, value in {"name": name, "label": name, **options}.items())
        for name, options in made.items()
    )
    (tmp_path / "run.toml").write_text(
        f'[prompts]\nfile = "{tmp_path / "prompts.csv"}"\n{tables}\n[[reward_models]]\nname = "colorfulness"\n'
        "[evaluate]\nn_resamples = 20\n"
    )
    done = invoke("run", tmp_path / "run.toml", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    found = results.read_results(tmp_path / "run")
    assert set(found.loc[found["metric"] == "wilcoxon_p/colorfulness", "model"]) == {"dance-flux"}
