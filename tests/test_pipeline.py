import math
from collections import Counter

import numpy as np
import PIL.Image
import pytest

from widespectrum import generation, judging, pipeline, store
from widespectrum.engine import local
from widespectrum.errors import ModelError
from widespectrum.generators import load_generator
from widespectrum.images import ImageReader
from widespectrum.judges import load_judge
from widespectrum.prompts import open_photograph
from widespectrum.protocols import Refusal
from widespectrum.rewards import load_reward_model
from widespectrum.scoring import scoring
from widespectrum.types import ModelSpec, Prompt

SPEC = ModelSpec(adapter="fake", name="fake", revision="v1")
PAIRS = ("bus", "cup", "dog", "oak", "sea")
ROLES = ("original", "wide_spectrum")


def make_prompts():
    for number, pair in enumerate(PAIRS):
        yield Prompt(prompt_id="", text=f"a {pair}", pair_id=pair, role="original")
        text = f"a {pair}, blurred" + "!" * number
        yield Prompt(prompt_id="", text=text, pair_id=pair, role="wide_spectrum", dimensions=("clarity",))


PROMPTS = {prompt.prompt_id: prompt for prompt in make_prompts()}


def color_of(text, seed):
    return tuple(np.random.default_rng([*text.encode(), seed]).integers(0, 256, 3).tolist())


class Painter:
    """A generator whose image is one color that text and seed decide; it can fail or refuse."""

    spec = SPEC

    def __init__(self, *, fails_on=(), refuses=()):
        self.fails_on, self.refuses = set(fails_on), refuses
        self.asked = []

    def generate(self, prompts, *, seeds, images=None):
        self.asked.append([(prompt.pair_id, prompt.role, seed) for prompt, seed in zip(prompts, seeds, strict=True)])
        if self.fails_on & {prompt.pair_id for prompt in prompts}:
            raise ModelError("out of paint")
        return [
            Refusal(f"no {prompt.pair_id}")
            if (prompt.pair_id, prompt.role) in self.refuses
            else PIL.Image.new("RGB", (4, 3), color_of(prompt.text, seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]


def value_of(color, text):
    return color[0] + 1000 * len(text) + color[1] * len(text) / 7


class PlainReward:
    """A reward model that depends on both the image and the prompt."""

    spec = SPEC

    def score(self, images, prompts):
        return np.array(
            [value_of(i.getpixel((0, 0)), p) for i, p in zip(images, prompts, strict=True)], dtype=np.float64
        )


class TwoTowerReward(PlainReward):
    """The same in two towers."""

    def __init__(self):
        self.images, self.texts = [], []

    def encode_images(self, images):
        self.images += [image.info["prompt"] for image in images]
        return np.array([image.getpixel((0, 0)) for image in images], dtype=np.float64)

    def encode_texts(self, prompts):
        self.texts += prompts
        return np.array([[len(text)] for text in prompts], dtype=np.float64)

    def combine(self, image_features, text_features):
        length = text_features[:, 0]
        return image_features[:, 0] + 1000 * length + image_features[:, 1] * length / 7

    def score(self, images, prompts):
        raise AssertionError("a two-tower model is asked through its towers")


@pytest.fixture
def run(tmp_path):
    store.append(tmp_path, "prompts", list(PROMPTS.values()))
    return tmp_path


def reasons(failures):
    return [failure.reason for failure in failures]


def generate(run, generator, *, label="g", seeds=(0,), batch_size=3, open_input=None):
    work = generation.planned(run, label, generator, seeds=seeds, open_input=open_input)
    return reasons(generation.make_images(work, group=batch_size, description="generate"))


def score(run, model, *, label="m", batch_size=3):
    work = scoring(run, {label: model})
    return reasons(local.run(work.make, work.items, batch_size=batch_size, description="score", prepare=work.prepare))


def judge(run, model, *, label, batch_size=3):
    judged = judging.judge_all(judging.planned(run, label, model), batch_size=batch_size, description="judge")
    return reasons(judged.failures)


def rows(run, table):
    """The rows by key."""
    found = {}
    for row in store.read(run, table).to_pylist():
        key = tuple(row[name] for name in store.KEYS[table])
        assert key not in found, f"{table} has {key} twice"
        found[key] = row
    return dict(sorted(found.items()))


@pytest.fixture
def painted(run):
    """The run with an image for every prompt."""
    assert generate(run, Painter()) == []
    return run


# generate


def test_every_prompt_and_seed_gets_its_image(run):
    generate(run, Painter(), seeds=(0, 5))
    images = rows(run, "images")
    assert set(images) == {(prompt, "g", seed) for prompt in PROMPTS for seed in (0, 5)}
    reader = ImageReader(run)
    for (prompt, _, seed), row in images.items():
        picture = reader.read([row["image_id"]])[row["image_id"]]
        assert picture.getpixel((0, 0)) == color_of(PROMPTS[prompt].text, seed)
        assert (row["status"], row["width"], row["height"], row["detail"]) == ("ok", 4, 3, "")
    assert len(pipeline.image_pairs(run)) == 2 * len(PAIRS)


def test_each_prompt_comes_with_the_photograph_of_its_pair(run):
    opened = []

    class Editor(Painter):
        def generate(self, prompts, *, seeds, images=None):
            assert [image.info["pair"] for image in images] == [prompt.pair_id for prompt in prompts]
            return list(images)

    def open_input(pair_id):
        opened.append(pair_id)
        image = PIL.Image.new("RGB", (2, 2))
        image.info["pair"] = pair_id
        return image

    assert generate(run, Editor(), open_input=open_input) == []
    assert Counter(opened) == dict.fromkeys(PAIRS, 2)


@pytest.mark.parametrize("change", [1, -1])
def test_a_wrong_number_of_answers_stores_nothing(run, change):
    class Careless(Painter):
        def generate(self, prompts, *, seeds, images=None):
            answers = super().generate(prompts, seeds=seeds)
            return answers[:-1] if change < 0 else [*answers, answers[0]]

    assert generate(run, Careless(), batch_size=10) == [
        f"10 of 10 not made: g gave {10 + change} answers to 10 prompts"
    ]
    assert store.parts(run, "images") == []


def test_a_failed_batch_is_left_for_the_next_run_and_the_others_are_kept(run, tmp_path_factory):
    failures = generate(run, Painter(fails_on={"dog"}), batch_size=2)
    assert failures == ["2 of 10 not made: out of paint"]
    assert {PROMPTS[key[0]].pair_id for key in rows(run, "images")} == set(PAIRS) - {"dog"}
    again = Painter()
    assert generate(run, again, batch_size=2) == []
    assert again.asked == [[("dog", role, 0) for role in ROLES]]
    calm = tmp_path_factory.mktemp("calm")
    store.append(calm, "prompts", list(PROMPTS.values()))
    generate(calm, Painter())
    assert rows(run, "images") == rows(calm, "images")
    third = Painter()
    assert generate(run, third) == []
    assert third.asked == []


def test_what_is_no_model_error_stops_and_keeps_what_was_made(run):
    class Interrupted(Painter):
        def generate(self, prompts, *, seeds, images=None):
            if self.asked:
                raise KeyboardInterrupt
            return super().generate(prompts, seeds=seeds)

    with pytest.raises(KeyboardInterrupt):
        generate(run, Interrupted(), batch_size=4)
    assert len(rows(run, "images")) == 4


def test_a_refusal_is_stored_with_its_reason_and_never_scored_or_judged(run):
    generate(run, Painter(refuses={("cup", "wide_spectrum"), ("oak", "original")}))
    refused = {
        (PROMPTS[key[0]].pair_id, row["detail"], row["image_id"], row["image"])
        for key, row in rows(run, "images").items()
        if row["status"] == "refused"
    }
    assert refused == {("cup", "no cup", "", None), ("oak", "no oak", "", None)}
    assert [pair.pair_id for pair in pipeline.image_pairs(run)] == ["bus", "dog", "sea"]
    score(run, PlainReward())
    judge(run, load_judge("rule", reward_model="m"), label="rule")
    assert {key[0] for key in rows(run, "scores")} == {"bus", "dog", "sea"}
    assert {PROMPTS[key[0]].pair_id for key in rows(run, "verdicts")} == {"bus", "dog", "sea"}
    assert generation.unmade(run, "g", (0,)) == []


# score


@pytest.mark.parametrize("model", [PlainReward, TwoTowerReward])
def test_each_cell_holds_the_score_of_its_image_under_its_prompt(run, model):
    generate(run, Painter(), seeds=(0, 5))
    score(run, model())
    scores = rows(run, "scores")
    assert len(scores) == len(PAIRS) * 2 * 4
    texts = {(prompt.pair_id, prompt.role): prompt.text for prompt in PROMPTS.values()}
    ids = {(prompt.pair_id, prompt.role): prompt.prompt_id for prompt in PROMPTS.values()}
    images = rows(run, "images")
    for (pair, generator, seed, image_role, prompt_role, label), row in scores.items():
        assert (generator, label, row["truncated"]) == ("g", "m", None)
        assert row["value"] == value_of(color_of(texts[pair, image_role], seed), texts[pair, prompt_role])
        assert row["prompt_id"] == ids[pair, prompt_role]
        assert row["image_id"] == images[ids[pair, image_role], "g", seed]["image_id"]


def test_a_two_tower_model_sees_each_image_and_each_text_once(painted):
    model = TwoTowerReward()
    assert score(painted, model, batch_size=2) == []
    assert Counter(model.images) == Counter(model.texts) == Counter(prompt.text for prompt in PROMPTS.values())


def test_the_towers_of_a_real_model_give_its_scores(tiny_run, tmp_path):
    model = load_reward_model("colorfulness")

    class WithoutTowers:
        spec = model.spec

        def score(self, images, prompts):
            return model.score(images, prompts)

    for table in ("prompts", "images"):
        for part in store.parts(tiny_run, table):
            store.write_file(tmp_path / table / part.name, part.read_bytes())
    score(tmp_path, WithoutTowers(), label="colorfulness")
    expected = {key: row for key, row in rows(tiny_run, "scores").items() if key[5] == "colorfulness"}
    assert len(expected) == 4 * len(pipeline.image_pairs(tiny_run)) > 0
    assert rows(tmp_path, "scores") == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_stores_nothing_and_names_the_pair(painted, bad):
    class Broken(PlainReward):
        def score(self, images, prompts):
            values = super().score(images, prompts)
            values[[prompt.startswith("a dog, blurred") for prompt in prompts]] = bad
            return values

    failures = score(painted, Broken(), batch_size=10)
    assert failures == ["pair dog of g: gave a score that is not finite"]
    assert {key[0] for key in rows(painted, "scores")} == set(PAIRS) - {"dog"}


@pytest.mark.parametrize("shape", [(19,), (21,), (5, 4), (20, 1)])
def test_scores_of_a_wrong_shape_store_nothing(painted, shape):
    class Broken(PlainReward):
        def score(self, images, prompts):
            return np.zeros(shape)

    failures = score(painted, Broken(), batch_size=10)
    assert [failure.partition(": ")[2] for failure in failures] == [f"gave scores of shape {shape} for 4 questions"] * 2
    # After two in a row the other pairs are not tried.
    assert failures[1].partition(": ")[0].count("pair ") == 3
    assert "and 1 more" in failures[1]
    assert store.parts(painted, "scores") == []


def test_a_second_run_scores_only_what_failed(painted):
    class Fragile(PlainReward):
        def score(self, images, prompts):
            if any("dog" in prompt for prompt in prompts):
                raise ModelError("afraid of dogs")
            return super().score(images, prompts)

    assert score(painted, Fragile(), batch_size=1) == ["pair dog of g: afraid of dogs"]
    work = scoring(painted, {"m": PlainReward()})
    assert ([pair.pair_id for pair, _ in work.items], work.rows) == (["dog"], 4)
    assert score(painted, PlainReward()) == []
    assert len(rows(painted, "scores")) == 20


def test_images_know_the_prompt_that_made_them(painted):
    assert score(painted, load_reward_model("oracle")) == []
    for key, row in rows(painted, "scores").items():
        assert row["value"] == float(key[3] == key[4])


# the whole


def test_the_tables_do_not_depend_on_the_batch_size(tiny_run, tmp_path, photos):
    photographs = {
        pair: photos / pair.partition("/")[0] for pair in {p.pair_id for p in pipeline.read_prompts(tiny_run)}
    }
    tables = {}
    for batch_size in (1, 7, 1000):
        folder = tmp_path / str(batch_size)
        store.append(folder, "prompts", store.read(tiny_run, "prompts"))
        for label, options in (("identity", {"size": 48}), ("photo-effects", {"size": 48, "strength": 3})):
            generate(
                folder,
                load_generator(label, **options),
                label=label,
                seeds=(0, 3),
                batch_size=batch_size,
                open_input=lambda pair: open_photograph(photographs[pair]),
            )
        for label in ("colorfulness", "random", "oracle"):
            score(folder, load_reward_model(label), label=label, batch_size=batch_size)
        judge(folder, load_judge("pixel"), label="pixel", batch_size=batch_size)
        assert len(store.parts(folder, "images")) == {1: 176, 7: 26, 1000: 2}[batch_size]
        tables[batch_size] = {name: rows(folder, name) for name in ("images", "scores", "verdicts")}
    assert all(tables[1].values())
    assert tables[1] == tables[7] == tables[1000]


def test_prompts_come_back_in_their_order(run):
    assert pipeline.read_prompts(run) == list(PROMPTS.values())
