import math

import numpy as np
import pytest
from PIL import Image

from tests.judges import made_qwen3vl as made
from widespectrum.errors import InputError, ModelError
from widespectrum.judges import load_judge
from widespectrum.judges.instructions import instruction
from widespectrum.judges.local_vlm import LocalVLMJudge
from widespectrum.protocols import Abstention, Answer, Failure, Judge, Question
from widespectrum.types import ModelSpec, Prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.checkpoint(tmp_path_factory.mktemp("qwen3vl"))


def loaded(folder, **options):
    return load_judge("qwen3-vl", **{"checkpoint": folder, "dtype": "float32", "max_pixels": 128 * 128, **options})


@pytest.fixture(scope="module")
def judge(folder):
    return loaded(folder)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def prompt(text="a dark and blurry dog"):
    return Prompt(prompt_id="", text=text, pair_id="dog", role="wide_spectrum", dimensions=("clarity",))


def question(order="first", text="a dark and blurry dog", image=None, rival=None):
    return Question(prompt=prompt(text), image=image or noise(90, 60), rival=rival or noise(50, 70, 1), order=order)


@pytest.mark.parametrize("order", ["first", "second", "both"])
@pytest.mark.parametrize("token", ["1", "2", "3"])
def test_a_model_that_always_says_the_same(folder, token, order):
    judge = loaded(folder)
    other = "1" if token == "3" else "3"
    made.always(judge, **{f"_{token}": 0.6, f"_{other}": 0.2})
    (answer,) = judge.judge([question(order)])
    first_shown = {"1": 1.0, "2": 0.0, "3": 0.5}[token]
    assert answer.outcome == (1 - first_shown if order == "second" else first_shown)
    assert answer.raw == token
    rest = 0.2 / (judge.model.network.lm_head.out_features - 2)
    mass = 0.8 + rest
    assert answer.details["mass"] == pytest.approx(mass, rel=1e-4)
    assert answer.confidence == pytest.approx(0.6 / mass, rel=1e-4)
    shares = {token: 0.6 / mass, other: 0.2 / mass}
    names = {"1": "rival", "2": "image", "3": "tie"} if order == "second" else {"1": "image", "2": "rival", "3": "tie"}
    assert answer.details["probabilities"] == pytest.approx(
        {names[each]: shares.get(each, rest / mass) for each in names}, rel=1e-4
    )


def test_two_tokens_that_are_as_likely_are_a_tie(folder):
    judge = loaded(folder)
    made.always(judge, _1=0.4, _2=0.4)
    (answer,) = judge.judge([question()])
    assert (answer.outcome, answer.raw) == (0.5, "3")


def test_probabilities_are_those_of_the_conversation(judge):
    """The whole of it, spelled out: what a vision-language model behind an endpoint reads, but for the last line."""
    image, rival = noise(90, 60), noise(50, 70, 1)
    encoded = judge.model.encode(
        instruction("verdict").text[: instruction("verdict").text.index("\n\nAnswer in JSON")],
        [
            "The request:\n\na dark and blurry dog\n\nThe first image:\n",
            rival,
            "\nThe second image:\n",
            image,
            "\nAnswer with one digit and nothing else: 1 if the first image matches better, 2 if the second image "
            "does, 3 for a tie.",
        ],
    )
    logits = judge.model.next_logits([encoded], batch_size=1)[0].double().numpy()
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    second, first, tie = shares[judge.model.token_ids(["1", "2", "3"])]
    (answer,) = judge.judge([question("second", image=image, rival=rival)])
    mass = first + second + tie
    expected = {"image": first / mass, "rival": second / mass, "tie": tie / mass}
    assert answer.details["probabilities"] == pytest.approx(expected, rel=1e-4)
    assert answer.details["mass"] == pytest.approx(mass, rel=1e-4)


def test_swapping_the_images_is_the_other_order(judge):
    image, rival = noise(90, 60), noise(50, 70, 1)
    one, two = judge.judge([question("first", image=image, rival=rival), question("second", image=rival, rival=image)])
    assert two.outcome == 1 - one.outcome
    assert two.raw == one.raw
    assert two.details["probabilities"]["rival"] == pytest.approx(one.details["probabilities"]["image"], rel=1e-5)


def test_batches_change_nothing_and_order_is_kept(folder, judge):
    questions = [
        question(order, text, noise(*size, seed))
        for seed, (order, text, size) in enumerate(
            [
                ("first", "x", (64, 64)),
                ("second", "a much longer prompt, " * 9 + "really", (120, 40)),
                ("first", "<|image_pad|> and <|im_end|>", (40, 120)),
                ("second", "漢字", (100, 100)),
                ("first", "dim", (64, 65)),
            ]
        )
    ]
    wide = Question(prompt=prompt(), image=noise(402, 2), rival=noise(50, 70), order="first")
    alone = Question(prompt=prompt(), image=noise(64, 64))
    mixed = [questions[0], wide, *questions[1:3], alone, *questions[3:]]
    found = loaded(folder, batch_size=3).judge(mixed)
    assert isinstance(judge, Judge)
    failed, abstained = found.pop(1), found.pop(3)
    assert isinstance(failed, Failure)
    assert failed.cause == "input"
    assert failed.reason.startswith("qwen3-vl, pair dog: the image cannot be read (absolute aspect ratio must be")
    assert abstained == Abstention("the verdict judge only compares two images under a prompt")
    for answer, single in zip(found, [loaded_answer(judge, each) for each in questions], strict=True):
        assert isinstance(answer, Answer)
        assert (answer.outcome, answer.raw) == (single.outcome, single.raw)
        assert answer.details["probabilities"] == pytest.approx(single.details["probabilities"], abs=1e-5)
    assert len({answer.confidence for answer in found}) == len(found)
    assert judge.judge([]) == []


def loaded_answer(judge, question):
    (answer,) = judge.judge([question])
    return answer


def test_the_spec_says_what_changes_answers_and_nothing_else(folder, judge, tmp_path):
    same = loaded(folder, batch_size=1, device="cpu")
    assert judge.spec == same.spec == ModelSpec.parse(str(judge.spec))
    assert judge.spec.revision == "v1"
    assert judge.spec.params["instruction"] == instruction("verdict").digest
    other = made.checkpoint(tmp_path / "other", seed=1)
    changed = [loaded(folder, dtype="bfloat16"), loaded(folder, max_pixels=5000), loaded(other)]
    (folder / "chat_template.jinja").write_text(made.TEMPLATE + "\n")
    try:
        changed.append(loaded(folder))
        specs = {each.spec.key for each in [judge, *changed]}
    finally:
        (folder / "chat_template.jinja").unlink()
    assert len(specs) == 5


def test_without_a_folder_it_is_pinned_to_a_commit_of_the_hub():
    judge = LocalVLMJudge()
    judge.keep_to(
        ModelSpec(adapter="qwen3-vl", name="qwen3-vl", params={"repo": judge.checkpoint.hub.repo, "commit": "a" * 40})
    )
    assert judge.spec.params["commit"] == "a" * 40
    assert judge.spec.params["repo"] == "Qwen/Qwen3-VL-8B-Instruct"
    # Another checkpoint's commit is none of this one.
    other = LocalVLMJudge()
    other.keep_to(ModelSpec(adapter="qwen3-vl", name="qwen3-vl", params={"repo": "a/b", "commit": "a" * 40}))
    assert other.checkpoint.hub.revision is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "nowhere"}, "qwen3-vl: there is nothing at nowhere: expected a file or a folder"),
        ({"checkpoint": "FOLDER/config.json"}, "qwen3-vl, checkpoint: there is no folder .*: expected a checkpoint of"),
        ({"checkpoint": "FOLDER/empty"}, r"qwen3-vl, checkpoint: .*config\.json cannot be read"),
        ({"dtype": "int8"}, "qwen3-vl: expected a dtype of float32, bfloat16, float16; got 'int8'"),
        ({"batch_size": 0}, "qwen3-vl: batch_size must be a whole number of 1 or more; got 0"),
        ({"max_pixels": 0.5}, "qwen3-vl: max_pixels must be a whole number of 1 or more; got 0.5"),
        ({"device": "tpu"}, "device 'tpu' cannot be used here"),
    ],
)
def test_wrong_options(folder, options, message):
    (folder / "empty").mkdir(exist_ok=True)
    if "checkpoint" in options:
        options = {"checkpoint": options["checkpoint"].replace("FOLDER", str(folder))}
    with pytest.raises(InputError, match=message):
        loaded(folder, **options)


def test_a_vocabulary_without_the_answers(folder, monkeypatch):
    monkeypatch.setattr(LocalVLMJudge, "answers", ("1", "12"))
    with pytest.raises(InputError, match="does not read '12' as one token each: give a checkpoint of Qwen3-VL"):
        loaded(folder).judge([question()])


def test_a_lack_of_memory_is_for_the_next_run(folder, monkeypatch):
    judge = loaded(folder)
    judge.open()

    def lacking(*_, **__):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(judge.model.network.model, "forward", lacking)
    with pytest.raises(ModelError, match=r"^qwen3-vl ran out of memory: give a smaller batch_size or max_pixels$"):
        judge.judge([question()])


def test_numbers_that_are_not_finite(folder):
    judge = loaded(folder)
    judge.open()
    judge.model.network.lm_head.weight.data.fill_(math.nan)
    with pytest.raises(ModelError, match="not finite: try dtype"):
        judge.judge([question()])
