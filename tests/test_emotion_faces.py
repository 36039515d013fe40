"""Stored verdicts on expressed emotion, from judge to metric."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.rewards import made_blip
from widespectrum import judging, store
from widespectrum.emotion_faces import face_table, generated_emotion_of
from widespectrum.errors import RunFolderError
from widespectrum.images import encode
from widespectrum.judges import load_judge
from widespectrum.types import ImageRecord, Prompt, Verdict

OPTIONS = {"n_resamples": 50, "seed": 0, "confidence_level": 0.95, "interval": "percentile"}
ASKED = [("baker", "sad"), ("baker", "happy"), ("pool", "sad"), ("pool", "happy"), ("pool", "angry")]


def made(generator, pair, role, prompt, number):
    pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image_id, content = encode(Image.fromarray(pixels))
    record = ImageRecord(
        image_id=image_id,
        prompt_id=prompt.prompt_id,
        generator=generator,
        seed=3,
        status="ok",
        detail="",
        width=40,
        height=40,
        path="",
    )
    return record, {"bytes": content, "path": None}


@pytest.fixture
def run(tmp_path):
    """Two generators, each with both images of five pairs; images of other prompts are different ones."""
    prompts, records, payload = [], [], []
    for template, emotion in ASKED:
        pair, control = f"{template}/{emotion}", "neutral" if emotion == "happy" else "happy"
        original = Prompt(prompt_id="", text=f"a {control} {template}", pair_id=pair, role="original", subset=emotion)
        wide = Prompt(
            prompt_id="",
            text=f"a {emotion} {template}",
            pair_id=pair,
            role="wide_spectrum",
            dimensions=("emotion",),
            subset=emotion,
        )
        prompts += [original, wide]
        for generator in ("a", "b"):
            for prompt in (original, wide):
                record, bytes_ = made(generator, pair, prompt.role, prompt, len(records))
                records.append(record)
                payload.append(bytes_)
    store.replace(tmp_path, "prompts", prompts)
    store.append(tmp_path, "images", records, payload)
    return tmp_path


def wide_images(run, generator):
    """Pair → (prompt_id of p_a, image_id of I_a)."""
    prompts = {row["prompt_id"]: row for row in store.read(run, "prompts").to_pylist()}
    rows = store.read(run, "images", ("prompt_id", "image_id", "generator")).to_pylist()
    found = {row["prompt_id"]: row["image_id"] for row in rows if row["generator"] == generator}
    return {
        prompt["pair_id"]: (name, found[name]) for name, prompt in prompts.items() if prompt["role"] == "wide_spectrum"
    }


def verdict(run, pair, probes, *, face=(1, 2, 3, 4), generator="a", **fields):
    prompt_id, image_id = wide_images(run, generator)[pair]
    details = {"emotion": pair.partition("/")[2], "face": face, "faces": 0 if face is None else 1, "probes": probes}
    values = {
        "prompt_id": prompt_id,
        "image_id": image_id,
        "rival_id": "",
        "dimension": "expressed emotion",
        "judge": "emotion",
        "outcome": float(np.mean(list(probes.values()))),
        "order": "both",
        "rationale": "",
        "details": json.dumps(details),
    }
    return Verdict(**{**values, **fields})


def test_the_figures_are_means_over_the_images_that_were_asked_for(run):
    other = store.read(run, "images", ("image_id", "prompt_id", "generator")).to_pylist()[0]
    assert (other["generator"], other["prompt_id"]) != ("a", wide_images(run, "a")["baker/sad"][0])
    rows = [
        verdict(run, "baker/sad", {"published": 0.2, "noun": 0.4}),
        verdict(run, "baker/happy", {"published": 0.8, "noun": 0.9}),
        verdict(run, "pool/sad", {"published": 0.4, "noun": 0.2}, face=None),
        verdict(run, "pool/happy", {"published": 0.6, "noun": 0.7}),
        verdict(run, "pool/angry", {"published": 0.5, "noun": 0.5}),
        # I_o under p_a, another judge, another generator and another dimension.
        verdict(run, "baker/sad", {"published": 1, "noun": 1}, image_id=other["image_id"]),
        verdict(run, "baker/sad", {"published": 1, "noun": 1}, judge="other"),
        verdict(run, "baker/sad", {"published": 0.1, "noun": 0.1}, generator="b"),
        verdict(run, "baker/happy", {"published": 1, "noun": 1}, dimension="content"),
    ]
    store.append(run, "verdicts", rows)
    found = generated_emotion_of(run, "emotion", OPTIONS)
    assert set(found) == {"a", "b"}
    values = found["a"]
    assert values["by_emotion"]["sad"]["match"] == pytest.approx((0.2 + 0.4 + 0.4 + 0.2) / 4)
    assert values["match"] == pytest.approx((0.3 + 0.5) / 2)
    assert values["by_emotion"]["sad"]["match_minus_control"] == pytest.approx((-0.6 - 0.5 - 0.2 - 0.5) / 4)
    assert values["by_emotion"]["angry"]["match_minus_control"] == pytest.approx((-0.1 - 0.2) / 2)
    assert values["by_emotion"]["sad"]["by_probe"]["noun"]["match"] == pytest.approx(0.3)
    assert (values["face_rate"], values["n_prompts"]) == (0.8, 2)
    assert found["b"]["match"] == pytest.approx(0.1)
    assert "no row has the emotion 'happy'" in found["b"]["notes"]["match_minus_control"]


def test_happy_faces_alone_have_their_own_figures(run):
    store.append(run, "verdicts", [verdict(run, "pool/happy", {"published": 0.6, "noun": 0.8})])
    values = generated_emotion_of(run, "emotion", OPTIONS)["a"]
    assert values["match"] == pytest.approx(0.7)
    assert "match_minus_control" not in values


def test_a_run_without_such_verdicts_has_no_figures(run):
    assert generated_emotion_of(run, "emotion", OPTIONS) == {}


@pytest.mark.parametrize(
    "details", ["", "[]", '{"emotion": "sad", "face": null}', '{"emotion": "sad", "face": null, "probes": {"a": 2}}']
)
def test_verdicts_of_another_kind_are_refused(run, details):
    store.append(run, "verdicts", [verdict(run, "pool/sad", {"noun": 0.5}, details=details)])
    with pytest.raises(RunFolderError, match=r"judge 'emotion', pair 'pool/sad': expected emotion, face and probes"):
        generated_emotion_of(run, "emotion", OPTIONS)


def test_from_the_judge_to_the_figures(run, tmp_path_factory):
    options = made_blip.checkpoint(tmp_path_factory.mktemp("blip"), grid=4)
    judge = load_judge("emotion", **options, device="cpu")
    judged = judging.judge_all(judging.planned(run, "emotion", judge), batch_size=8, description="judge")
    assert (judged.answered, judged.failures, judged.trouble) == (20, [], None)
    table = face_table(run, "emotion")
    assert table.groupby(["generator", "template", "emotion"]).size().tolist() == [5] * 10
    assert set(table["pair_id"]) == {f"{template}/{emotion}" for template, emotion in ASKED}
    outcomes = {row["image_id"]: row["outcome"] for row in store.read(run, "verdicts").to_pylist()}
    expected = np.mean([outcomes[wide_images(run, "b")[f"{name}/sad"][1]] for name in ("baker", "pool")])
    values = generated_emotion_of(run, "emotion", OPTIONS)["b"]
    assert values["by_emotion"]["sad"]["match"] == pytest.approx(expected)
    assert values["face_rate"] == 0
