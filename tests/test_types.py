import dataclasses
import hashlib
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from widespectrum.errors import InputError
from widespectrum.types import (
    DIMENSIONS,
    OPTIONAL_DIMENSIONS,
    ImageRecord,
    MetricResult,
    ModelSpec,
    Prompt,
    RunManifest,
    Score,
    Submission,
    Verdict,
    canonical_json,
    digest,
    prompt_id,
)

SHA = "0123456789abcdef" * 4
COMMIT = "0123456789abcdef0123456789abcdef01234567"

MANIFEST = {
    "schema_version": 1,
    "benchmark_version": "0.1.0",
    "datasets": {"photographs": SHA},
    "specs": {"generators": {"identity": "identity:identity@v1?size=256"}},
    "functional_digest": SHA,
    "packages": {"numpy": "2.0"},
    "git_commit": None,
    "dirty": None,
    "seed": 0,
    "created": "2026-01-01T00:00:00+00:00",
    "status": "started",
}

VALID = {
    Prompt: {"prompt_id": "", "text": "a cup", "pair_id": "cup", "role": "original"},
    ModelSpec: {"adapter": "hps", "name": "hpsv3"},
    ImageRecord: {
        "image_id": SHA,
        "prompt_id": "p",
        "generator": "g",
        "seed": 0,
        "status": "ok",
        "detail": "",
        "width": 2,
        "height": 1,
        "path": "x.png",
    },
    Score: {
        "pair_id": "cup",
        "generator": "g",
        "image_seed": 0,
        "image_role": "original",
        "prompt_role": "wide_spectrum",
        "image_id": SHA,
        "prompt_id": "p",
        "reward_model": "hpsv3",
        "value": -1.5,
        "truncated": False,
    },
    Verdict: {
        "prompt_id": "p",
        "image_id": SHA,
        "rival_id": SHA,
        "dimension": "overall",
        "judge": "pixel",
        "outcome": 0.5,
        "order": "first",
        "rationale": "",
    },
    MetricResult: {
        "metric": "image_prior",
        "model": "hpsv3",
        "value": 0.5,
        "ci_low": 0.25,
        "ci_high": 0.75,
        "level": 0.95,
        "n": 3,
        "subset": "all",
    },
    RunManifest: MANIFEST,
    Submission: {
        "manifest": RunManifest(**MANIFEST),
        "tables": ("scores/part-000000.parquet",),
        "model_name": "m",
        "model_url": "",
        "license": "Apache-2.0",
        "contact": "a@b.org",
    },
}

WIDE = {"role": "wide_spectrum", "dimensions": ("clarity",)}
REFUSED = {"status": "refused", "detail": "why", "image_id": "", "path": "", "width": 0, "height": 0}
ALONE = {"rival_id": "", "order": "both"}


def make(record, **changes):
    return record(**{**VALID[record], **changes})


@pytest.mark.parametrize(
    ("record", "changes"),
    [
        *((record, {}) for record in VALID),
        (Prompt, WIDE),
        (Prompt, {**WIDE, "dimensions": OPTIONAL_DIMENSIONS}),
        (Prompt, {**WIDE, "dimensions": DIMENSIONS}),
        (Prompt, {"text": "a caf\u00e9"}),
        (Prompt, {"prompt_id": "external:paper:3"}),
        (ModelSpec, {"revision": COMMIT}),
        (ModelSpec, {"revision": "v12"}),
        (ModelSpec, {"params": {"dtype": "float16", "steps": 20, "scale": 3.5, "crop": True}}),
        (ImageRecord, REFUSED),
        (Score, {"value": 0.0}),
        (Verdict, {"outcome": 0.0}),
        (Verdict, {"outcome": 1.0, "order": "second"}),
        (Verdict, ALONE),
        (MetricResult, {"ci_low": 0.5, "ci_high": 0.5}),
        (MetricResult, {"ci_low": math.nan, "ci_high": math.nan}),
        (MetricResult, {"n": 1, "tie_group": 2}),
        (RunManifest, {"status": "complete", "git_commit": COMMIT, "dirty": True}),
        (RunManifest, {"specs": {"reward_models": {"hpsv3": "hps:hpsv3"}}}),
        (Submission, {"tables": ("a/..b/c.parquet",)}),
    ],
)
def test_what_the_invariants_allow(record, changes):
    made = make(record, **changes)
    given_values = {**VALID[record], **changes}
    if record is Prompt:
        given_values["prompt_id"] = given_values["prompt_id"] or made.prompt_id
    assert {name: getattr(made, name) for name in given_values} == given_values


@pytest.mark.parametrize(
    ("record", "changes", "message"),
    [
        (Prompt, {"role": "distorted"}, "role must be one of original, wide_spectrum; got 'distorted'"),
        (Prompt, {"pair_id": ""}, "needs a pair_id"),
        (Prompt, {"text": ""}, "pair 'cup': the text is empty"),
        (Prompt, {"text": " \n"}, "the text is empty"),
        (Prompt, {"text": "a cup "}, "starts or ends with a blank"),
        (Prompt, {"text": "\ta cup"}, "starts or ends with a blank"),
        (Prompt, {"text": unicodedata.normalize("NFD", "a caf\u00e9")}, "must be Unicode NFC"),
        (Prompt, {"dimensions": ("clarity",)}, r"original prompt has no dimensions .* \['clarity'\]"),
        (Prompt, {"role": "wide_spectrum"}, "wide_spectrum prompt at least one"),
        (
            Prompt,
            {**WIDE, "dimensions": ("colour brightness",)},
            "unknown dimension 'colour brightness'; expected one of",
        ),
        (Prompt, {**WIDE, "dimensions": ("clarity", "clarity")}, "a dimension is named twice"),
        (Prompt, {"prompt_id": "0" * 16}, "'0000000000000000' does not belong to this text; expected '[0-9a-f]{16}'"),
        *(
            (ModelSpec, {field: bad}, f"{field} must be")
            for field in ("adapter", "name")
            for bad in ("", "a:b", "a@b", "a?b")
        ),
        (ModelSpec, {"revision": "main"}, "revision of 'hpsv3' must be a 40-digit commit .* got 'main'"),
        (ModelSpec, {"revision": COMMIT[:-1]}, "40-digit commit"),
        (ModelSpec, {"revision": COMMIT.upper()}, "40-digit commit"),
        (ModelSpec, {"revision": ""}, "40-digit commit"),
        (ModelSpec, {"revision": "v"}, "40-digit commit"),
        (ModelSpec, {"params": {"scale": math.nan}}, "option 'scale' of 'hpsv3' must be a text, a finite number"),
        (ModelSpec, {"params": {"scale": math.inf}}, "finite number or true/false; got inf"),
        (ModelSpec, {"params": {"sizes": [1, 2]}}, r"finite number or true/false; got \[1, 2\]"),
        (ImageRecord, {"status": "failed"}, "status must be one of ok, refused; got 'failed'"),
        (ImageRecord, {"image_id": SHA[:-1]}, "image_id must be a sha256"),
        (ImageRecord, {"image_id": ""}, "image_id must be a sha256; got ''"),
        (ImageRecord, {"width": 0}, "needs a size; got 0x1"),
        (ImageRecord, {"height": -1}, "needs a size; got 2x-1"),
        (ImageRecord, {**REFUSED, "image_id": SHA}, "a refusal has no image"),
        (ImageRecord, {**REFUSED, "path": "x.png"}, "a refusal has no image"),
        (ImageRecord, {**REFUSED, "detail": ""}, "a refusal needs its reason"),
        (Score, {"image_role": "didp"}, "image_role must be one of"),
        (Score, {"prompt_role": ""}, "prompt_role must be one of"),
        *((Score, {"value": bad}, "'hpsv3' on pair 'cup' must be finite") for bad in (math.nan, math.inf, -math.inf)),
        *((Verdict, {"outcome": bad}, r"must be in \[0, 1\]; got") for bad in (-0.01, 1.01, -1, math.nan)),
        (Verdict, {"order": "third"}, "order must be one of first, second, both"),
        (Verdict, {"rival_id": "", "order": "second"}, "without a rival has order 'both'; got 'second'"),
        (MetricResult, {"value": math.nan}, "must be finite; got nan"),
        (MetricResult, {"value": 0.2}, "expected ci_low <= value <= ci_high; got 0.25, 0.2, 0.75"),
        (MetricResult, {"value": 0.8}, "expected ci_low <= value <= ci_high"),
        (MetricResult, {"ci_low": math.nan}, "expected ci_low <= value <= ci_high"),
        (MetricResult, {"ci_high": math.nan}, "expected ci_low <= value <= ci_high"),
        *((MetricResult, {"level": bad}, "level must be between 0 and 1") for bad in (0.0, 1.0, 95)),
        *((MetricResult, {"n": bad}, "n must be positive") for bad in (0, -1)),
        (RunManifest, {"status": "done"}, "status must be one of started, complete"),
        (RunManifest, {"specs": {"judges": {"j": "vlm:j@main"}}}, "must be a 40-digit commit"),
        (RunManifest, {"specs": {"judges": {"j": "no spec"}}}, "expected 'adapter:name@revision', got 'no spec'"),
        (RunManifest, {"specs": {"judges": {"": "vlm:j@v1"}}}, "holds a judges without a label"),
        *((Submission, {field: " "}, f"needs a {field}") for field in ("model_name", "license", "contact")),
        *(
            (Submission, {"tables": (bad,)}, "must lie inside the submission")
            for bad in ("/etc/passwd", "../x", "a/../../x", "a\\b", "c:x", "https://x.org/y")
        ),
    ],
)
def test_what_the_invariants_refuse(record, changes, message):
    with pytest.raises(InputError, match=message):
        make(record, **changes)


@pytest.mark.parametrize("record", VALID)
def test_records_cannot_be_changed_and_take_no_positions(record):
    made = make(record)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(record)[0].name, "other")
    with pytest.raises(TypeError):
        record(*VALID[record].values())
    assert not hasattr(made, "__dict__")


def test_dimensions():
    assert len(DIMENSIONS) == 11
    assert list(DIMENSIONS) == sorted(DIMENSIONS)
    assert not set(DIMENSIONS) & set(OPTIONAL_DIMENSIONS)


def test_prompt_id_changes_with_everything_that_it_names():
    prompts = [
        make(Prompt),
        make(Prompt, text="a mug"),
        make(Prompt, pair_id="cup2"),
        make(Prompt, **WIDE),
        make(Prompt, **WIDE | {"dimensions": ("emotion",)}),
        make(Prompt, **WIDE | {"dimensions": ("clarity", "emotion")}),
    ]
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)
    assert prompt_id("a", "original", "bc") != prompt_id("ab", "original", "c")
    assert make(Prompt, subset="x").prompt_id == make(Prompt).prompt_id


def test_canonical_json_and_digest():
    assert canonical_json({"b": [1, 2.5, True, None], "a": "é"}) == '{"a":"é","b":[1,2.5,true,null]}'
    assert digest({"b": 1, "a": "é"}) == hashlib.sha256(b'{"a":"\xc3\xa9","b":1}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(math.nan)


PARAMETERS = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
NAMES = st.text(min_size=1).filter(lambda text: not set(text) & set(":@?"))


@given(NAMES, NAMES, st.sampled_from([None, COMMIT, "v3"]), st.dictionaries(st.text(), PARAMETERS))
def test_a_spec_parses_back(adapter, name, revision, params):
    spec = ModelSpec(adapter=adapter, name=name, revision=revision, params=params)
    back = ModelSpec.parse(str(spec))
    assert dataclasses.astuple(back) == dataclasses.astuple(spec)
    assert [type(value) for value in back.params.values()] == [type(value) for value in spec.params.values()]
    assert back == spec
    assert back.key == spec.key


@given(st.dictionaries(st.text(), PARAMETERS, min_size=2), st.randoms())
def test_the_key_does_not_depend_on_the_order_of_the_options(params, random):
    shuffled = list(params.items())
    random.shuffle(shuffled)
    spec, other = (make(ModelSpec, params=given_params) for given_params in (params, dict(shuffled)))
    assert (spec.key, str(spec)) == (other.key, str(other))


LOOK_ALIKES = st.sampled_from([True, 1, 1.0, False, 0, 0.0, "1", "true", ""])


@given(LOOK_ALIKES, LOOK_ALIKES)
def test_specs_are_equal_where_their_keys_are(one, other):
    specs = [make(ModelSpec, params={"option": value}) for value in (one, other)]
    same = type(one) is type(other) and one == other
    assert (specs[0].key == specs[1].key) == same
    assert (specs[0] == specs[1]) == same
    assert (len(set(specs)) == 1) == same


def test_the_key_changes_with_every_part():
    specs = [
        make(ModelSpec),
        make(ModelSpec, adapter="clip"),
        make(ModelSpec, name="hpsv2"),
        make(ModelSpec, revision=COMMIT),
        make(ModelSpec, revision="v1"),
        make(ModelSpec, params={"dtype": "float16"}),
        make(ModelSpec, params={"dtype": "float32"}),
    ]
    assert len({spec.key for spec in specs}) == len(specs)
    assert make(ModelSpec) != "hps:hpsv3"


@pytest.mark.parametrize(
    "text", ["", "hps", "hps:", ":x", "a:b@", "a:b:c", "a:b?x", "a:b?x=", "a:b?x=abc", "a:b?x=[1]"]
)
def test_what_is_no_spec(text):
    with pytest.raises(InputError):
        ModelSpec.parse(text)
