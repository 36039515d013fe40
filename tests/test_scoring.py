"""Reward models with weights on a run: one decode and one pass per image, gaps by row, what a window cuts off."""

import hashlib
import shutil

import numpy as np
import PIL.Image
import pytest

from tests.rewards import made_clip, made_laion, made_pickscore
from widespectrum import results, run_models, scoring, stages, store, tables
from widespectrum.config import parse_run_file
from widespectrum.engine import local
from widespectrum.errors import InputError
from widespectrum.images import ImageReader, encode
from widespectrum.rewards import load_reward_model
from widespectrum.types import ImageRecord, ModelSpec, Prompt, RunManifest

LONG = "a house at noon with " + "very " * 90 + "heavy fog, and in the end a garish pink sky"
TEXTS = {
    "fog": ("a house", "a house in heavy fog", {"clarity": "heavy fog"}),
    "long": ("a long house", LONG, {"clarity": "heavy fog", "color aesthetic": "a garish pink sky"}),
    "token": ("a dog", "a dog <|endoftext|> in the dark", {"color brightness": "in the dark"}),
}


def prompts_of(pair_id):
    plain, wide, effects = TEXTS[pair_id]
    return (
        Prompt(prompt_id="", text=plain, pair_id=pair_id, role="original"),
        Prompt(
            prompt_id="",
            text=wide,
            pair_id=pair_id,
            role="wide_spectrum",
            dimensions=tuple(effects),
            effects=tuple(effects.values()),
        ),
    )


def picture(seed, size=(40, 50)):
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def add_image(run, prompt, content):
    image_id = hashlib.sha256(content).hexdigest()
    record = ImageRecord(
        image_id=image_id,
        prompt_id=prompt.prompt_id,
        generator="g",
        seed=0,
        status="ok",
        detail="",
        width=5,
        height=4,
        path="x",
    )
    store.append(run, "images", [record], [{"bytes": content, "path": "x"}])
    return image_id


@pytest.fixture
def run(tmp_path):
    """Three pairs with their images and nothing else."""
    folder = tmp_path / "run"
    for number, pair_id in enumerate(TEXTS):
        for role, prompt in enumerate(prompts_of(pair_id)):
            store.append(folder, "prompts", [prompt])
            add_image(folder, prompt, encode(picture(2 * number + role))[1])
    return folder


@pytest.fixture(scope="session")
def pickscore(tmp_path_factory):
    return made_pickscore.checkpoint(tmp_path_factory.mktemp("pickscore"))


def manifest():
    spec = str(ModelSpec(adapter="a", name="g", revision="v1"))
    return RunManifest(
        schema_version=4,
        benchmark_version="0",
        datasets={},
        specs={"generators": {"g": spec}, "reward_models": {}, "judges": {}},
        functional_digest="",
        packages={},
        git_commit=None,
        dirty=None,
        seed=0,
        created="",
        status="started",
    )


def work_off(run, models, batch_size=2):
    work = scoring.scoring(run, models)
    return local.run(work.make, work.items, batch_size=batch_size, description="score", prepare=work.prepare)


def scores(run):
    rows = store.read(run, "scores").to_pylist()
    keys = ("reward_model", "pair_id", "image_role", "prompt_role")
    return {tuple(row[key] for key in keys): row for row in rows}


def test_a_run_holds_what_score_gives(run, pickscore):
    model = load_reward_model("pickscore", **pickscore)
    assert work_off(run, {"pickscore": model}) == []
    reader, found = ImageReader(run), scores(run)
    assert len(found) == 12
    for row in found.values():
        image = reader.read([row["image_id"]])[row["image_id"]]
        text = dict((prompt.role, prompt.text) for prompt in prompts_of(row["pair_id"]))[row["prompt_role"]]
        assert row["value"] == pytest.approx(model.score([image], [text])[0], abs=1e-4)


def test_the_four_scores_of_a_pair_take_two_image_passes_and_one_decode(run, pickscore, monkeypatch):
    passes, decoded = [], []
    model, other = (load_reward_model("pickscore", **pickscore) for _ in range(2))
    encoded, opened = type(model)._encode, scoring.decode
    monkeypatch.setattr(
        type(model), "_encode", lambda self, pixels: passes.append(len(pixels)) or encoded(self, pixels)
    )
    monkeypatch.setattr(scoring, "decode", lambda *arguments: decoded.append(1) or opened(*arguments))
    assert work_off(run, {"a": model, "b": other}) == []
    assert sum(passes) == 2 * 6
    assert len(decoded) == 6


def test_clip_and_the_aesthetic_head_share_a_pass(run, tmp_path, monkeypatch):
    head = made_laion.checkpoint(tmp_path)
    clip = load_reward_model("clip-l", checkpoint=head["clip"], tokenizer=made_clip.VOCABULARY)
    laion = load_reward_model("laion-aesthetic", **head)
    alone = load_reward_model("laion-aesthetic", **head).score([picture(0)], ["x"])
    passes = []
    for kind in {type(clip), type(laion)}:
        encode_pixels = kind._encode
        monkeypatch.setattr(
            kind, "_encode", lambda self, pixels, to=encode_pixels: passes.append(len(pixels)) or to(self, pixels)
        )
    assert work_off(run, {"clip-l": clip, "laion-aesthetic": laion}) == []
    assert sum(passes) == 6
    assert scores(run)["laion-aesthetic", "fog", "original", "original"]["value"] == pytest.approx(alone[0], abs=1e-4)


def test_what_the_window_cuts_off_is_said_per_row(run, pickscore):
    assert work_off(run, {"pickscore": load_reward_model("pickscore", **pickscore)}) == []
    found = {key[1:]: row for key, row in scores(run).items()}
    cut = {key for key, row in found.items() if row["truncated"]}
    assert cut == {("long", role, "wide_spectrum") for role in ("original", "wide_spectrum")}
    assert {key: row["past_window"] for key, row in found.items() if row["past_window"]} == {
        key: ["clarity", "color aesthetic"] for key in cut
    }
    assert {key for key, row in found.items() if row["special"]} == {
        ("token", role, "wide_spectrum") for role in ("original", "wide_spectrum")
    }


def test_only_what_stands_past_the_window_is_lost(pickscore):
    model = load_reward_model("pickscore", **pickscore)
    words = {"clarity": "soft fog", "emotion": "a weeping man"}
    # start, 75 tokens of text, end
    for fill, lost in ((70, ()), (71, ("emotion",)), (74, ("emotion",))):
        text = "soft fog " + "very " * fill + "a weeping man"
        prompt = Prompt(
            prompt_id="",
            text=text,
            pair_id="p",
            role="wide_spectrum",
            dimensions=tuple(words),
            effects=tuple(words.values()),
        )
        reading = scoring.read_prompt(model, prompt)
        assert (reading.past_window, reading.truncated) == (lost, bool(lost))


def test_an_image_that_cannot_be_scored_leaves_the_other_rows(run, pickscore):
    prompt = prompts_of("fog")[0]
    broken = encode(picture(9))[1][:-30]
    shutil.rmtree(run / "images")
    for number, pair_id in enumerate(TEXTS):
        for role, each in enumerate(prompts_of(pair_id)):
            add_image(run, each, broken if each == prompt else encode(picture(2 * number + role))[1])
    models = {"pickscore": load_reward_model("pickscore", **pickscore), "sharpness": load_reward_model("sharpness")}
    (failure,) = work_off(run, models, batch_size=3)
    assert failure.cause == "input"
    assert "pair fog of g: the image " in failure.reason
    assert "of the original prompt cannot be decoded" in failure.reason
    assert {key[1] for key in scores(run)} == {"long", "token"}
    assert [pair.pair_id for pair, _ in scoring.unscored(run, list(models)).values()] == ["fog"]


def test_an_image_that_one_model_refuses_is_scored_by_the_others(run, pickscore, monkeypatch):
    model = load_reward_model("pickscore", **pickscore)

    def refuse(image):
        if image.info["prompt"] == "a house":
            raise InputError("too thin")
        return type(model).prepare(model, image)

    monkeypatch.setattr(model, "prepare", refuse)
    (failure,) = work_off(run, {"pickscore": model, "sharpness": load_reward_model("sharpness")}, batch_size=3)
    assert (failure.reason, failure.cause, failure.model) == ("pair fog of g: too thin", "input", "pickscore")
    assert len(scores(run)) == 12 + 8


def test_tables_do_not_depend_on_the_batch_size(run, pickscore, tmp_path):
    tables_found = []
    for size in (1, 2, 3):
        folder = tmp_path / str(size)
        shutil.copytree(run, folder)
        assert work_off(folder, {"m": load_reward_model("pickscore", **pickscore)}, batch_size=size) == []
        tables_found.append({key: row["value"] for key, row in scores(folder).items()})
    for other in tables_found[1:]:
        assert other == {key: pytest.approx(value, abs=1e-4) for key, value in tables_found[0].items()}


def test_results_for_cut_and_uncut_prompts_stand_apart(run, pickscore):
    from widespectrum.runs import write_manifest

    write_manifest(run, manifest())
    (run / "run.toml").write_text("[evaluate]\nn_resamples = 50\n")
    assert work_off(run, {"pickscore": load_reward_model("pickscore", **pickscore)}) == []
    results.evaluate(run, parse_run_file("[evaluate]\nn_resamples = 50\n"))
    table = results.read_results(run)
    found = table[table["model"] == "pickscore"].set_index(["subset", "metric"])["value"]
    assert found["all", "cut_rate"] == pytest.approx(1 / 3)
    assert found["all", "special_rate"] == pytest.approx(1 / 3)
    assert found["all/dimension=clarity", "past_window_rate"] == pytest.approx(1 / 2)
    assert found["all/dimension=color aesthetic", "past_window_rate"] == 1
    assert (found["all/prompt=cut", "n_pairs"], found["all/prompt=uncut", "n_pairs"]) == (1, 2)
    own = {key[1:]: row["value"] for key, row in scores(run).items()}

    def gap(pair, prompt):
        return own[pair, "wide_spectrum", prompt] - own[pair, "original", prompt]

    prior = (gap("long", "original") + gap("long", "wide_spectrum")) / 2
    assert found["all/prompt=cut", "image_prior"] == pytest.approx(prior)
    text = "\n".join(tables.cautions(run))
    assert "pickscore read only the beginning of 1 of 3 prompt pairs" in text
    assert "clarity (1 of 2), color aesthetic (1 of 1)" in text
    assert "1 of 3 prompt pairs hold text that is a special token for pickscore" in text


def test_two_labels_of_one_model_are_refused_and_two_checkpoints_are_not(run, pickscore, tmp_path):
    def choice(label, checkpoint):
        options = {"name": "pickscore", "label": label, "checkpoint": checkpoint, "tokenizer": made_clip.VOCABULARY}
        return "[[reward_models]]\n" + "".join(f'{key} = "{value}"\n' for key, value in options.items())

    (tmp_path / "other").mkdir()
    other = made_pickscore.checkpoint(tmp_path / "other", seed=1)
    both = parse_run_file(choice("one", pickscore["checkpoint"]) + choice("two", other["checkpoint"]))
    models = run_models.load_models(both)
    assert list(models.reward_models) == ["one", "two"]
    keys = {model.spec.key for model in models.reward_models.values()}
    assert len(keys) == 2
    twins = run_models.load_models(parse_run_file(choice("one", pickscore["checkpoint"]) * 1))
    again = run_models.load_models(parse_run_file(choice("two", pickscore["checkpoint"])))
    assert twins.reward_models["one"].spec.key == again.reward_models["two"].spec.key
    with pytest.raises(InputError, match="reward model pickscore is named twice: delete one, or give one of them"):
        text = choice("x", pickscore["checkpoint"]).replace('label = "x"\n', "")
        run_models.load_models(parse_run_file(text + text.replace("checkpoint", "batch_size = 2\ncheckpoint")))


def test_the_place_of_a_checkpoint_is_no_part_of_what_a_run_asks_for():
    first, second = (
        parse_run_file(f'[[reward_models]]\nname = "pickscore"\ncheckpoint = "{place}"\ndevice = "{device}"\n')
        for place, device in (("here", "cpu"), ("there", "cuda"))
    )
    assert first.asks_for == second.asks_for
    assert first.asks_for != parse_run_file('[[reward_models]]\nname = "pickscore"\ndtype = "bfloat16"\n').asks_for


def test_a_checkpoint_that_cannot_be_loaded_leaves_the_other_models(run, pickscore, tmp_path):
    from widespectrum.runs import write_manifest

    write_manifest(run, manifest())
    (run / "run.toml").write_text("")
    broken = tmp_path / "broken"
    shutil.copytree(pickscore["checkpoint"], broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    models = {
        "broken": load_reward_model("pickscore", **{**pickscore, "checkpoint": broken}),
        "sharpness": load_reward_model("sharpness"),
    }
    said = []
    chosen = run_models.Models(generators={}, reward_models=models, judges={})
    (failure,) = stages.score(run, parse_run_file(""), chosen, said.append)
    assert failure.cause == "input"
    assert failure.reason.startswith(f"score broken: {weights} ")
    assert said == ["score: 12 scores of 3 image pairs, 0 API calls"]
    assert {key[0] for key in scores(run)} == {"sharpness"}
