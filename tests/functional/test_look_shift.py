"""`look_shift`: NumPy and SciPy as oracles, gaps and groups."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from widespectrum.functional import look_shift, look_statistics
from widespectrum.functional._look import COMMON, LOOKS

MEASURED = {}


def measured(image):
    """`look_statistics` of an array, worked out once however often it is seen."""
    if not isinstance(image, np.ndarray):
        return look_statistics(image)
    key = image.tobytes()
    if key not in MEASURED:
        MEASURED[key] = look_statistics(image)
    return MEASURED[key]


@pytest.fixture(autouse=True)
def measured_once(monkeypatch):
    monkeypatch.setattr("widespectrum.functional._look_shift.look_statistics", measured)


def pictures(n, seed=0):
    """Photographs and generated pictures: noise of random mean, contrast and tint, the generated ones brighter."""
    rng = np.random.default_rng(seed)
    made = []
    for lift in (0, 30):
        light = rng.uniform(60, 150, (n, 1, 1, 1)) + lift
        tint = rng.uniform(0.6, 1, (n, 1, 1, 3))
        noise = rng.normal(0, 1, (n, COMMON, COMMON, 1)) * rng.uniform(5, 20, (n, 1, 1, 1))
        made.append(list(np.clip((light + noise) * tint, 0, 255).round().astype(np.uint8)))
    return made


@pytest.fixture(scope="module")
def pairs():
    return pictures(10)


def table(images):
    return {name: np.array([measured(image)[name] for image in images]) for name in LOOKS}


def test_shifts_agree_with_numpy_and_scipy(pairs):
    photograph, generated = pairs
    result = look_shift(photograph, generated, n_resamples=50)
    before, after = table(photograph), table(generated)
    p = []
    for name in LOOKS:
        shift = after[name] - before[name]
        assert result[f"{name}_shift"] == pytest.approx(shift.mean())
        assert result[f"{name}_shift_standardised"] == pytest.approx(shift.mean() / before[name].std(ddof=1))
        assert result[f"{name}_shift_ci_low"] <= result[f"{name}_shift"] <= result[f"{name}_shift_ci_high"]
        p.append(result[f"{name}_p"])
        assert p[-1] == pytest.approx(stats.wilcoxon(shift, method="exact").pvalue)
    adjusted = multipletests(p, method="holm")[1]
    assert [result[f"{name}_p_holm"] for name in LOOKS] == pytest.approx(list(adjusted))
    assert result["coverage"] == dict.fromkeys(LOOKS, 1)
    assert (result["n_pairs"], result["n_prompts"], result["notes"]) == (10, 10, {})


def test_the_standardised_interval_agrees_with_scipy(pairs):
    photograph, generated = pairs
    result = look_shift(photograph, generated, n_resamples=10_000)
    before, after = table(photograph)["brightness"], table(generated)["brightness"]
    oracle = stats.bootstrap(
        (before, after),
        lambda a, b, axis: (b - a).mean(axis=axis) / a.std(axis=axis, ddof=1),
        n_resamples=10_000,
        method="percentile",
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(5),
    )
    margin = 0.15 * oracle.standard_error
    assert result["brightness_shift_standardised_ci_low"] == pytest.approx(oracle.confidence_interval.low, abs=margin)
    assert result["brightness_shift_standardised_ci_high"] == pytest.approx(oracle.confidence_interval.high, abs=margin)


def test_groups_are_the_figures_of_their_own_rows_and_holm_spans_them_all(pairs):
    photograph, generated = pairs
    groups = ["krea", "flux"] * 5
    result = look_shift(photograph, generated, group=groups, prompt_id=list("abcdefghij"), n_resamples=20)
    for k, name in enumerate(("krea", "flux")):
        alone = look_shift(photograph[k::2], generated[k::2], n_resamples=20)
        names = [f"{look}_{end}" for look in LOOKS for end in ("shift", "shift_standardised", "p")]
        block = result["by_group"][name]
        assert {key: block[key] for key in names} == pytest.approx({key: alone[key] for key in names})
    family = [block[f"{look}_p"] for block in result["by_group"].values() for look in LOOKS]
    adjusted = [block[f"{look}_p_holm"] for block in result["by_group"].values() for look in LOOKS]
    assert adjusted == pytest.approx(list(multipletests(family, method="holm")[1]))


def test_a_photograph_with_several_pictures_counts_once_in_the_test(pairs):
    photograph, generated = pairs
    result = look_shift(
        [photograph[k // 2] for k in range(6)],
        generated[:6],
        prompt_id=[0, 0, 1, 1, 2, 2],
        image_seed=[0, 1] * 3,
        n_resamples=10,
    )
    assert (result["n_pairs"], result["n_prompts"]) == (6, 3)
    assert result["brightness_p"] == 0.25


def test_an_identical_copy_has_no_shift(pairs):
    result = look_shift(pairs[0], pairs[0], n_resamples=20)
    for name in LOOKS:
        assert result[f"{name}_shift"] == result[f"{name}_shift_ci_low"] == result[f"{name}_shift_standardised"] == 0
        assert "difference other than 0" in result["notes"][f"{name}_p"]
        assert f"{name}_p_holm" not in result


def test_a_row_without_a_statistic_is_left_out_of_it(pairs):
    photograph, generated = pairs
    plain = np.full((COMMON, COMMON, 3), 90, dtype=np.uint8)
    result = look_shift([*photograph[:3], photograph[3]], [*generated[:3], plain], n_resamples=50)
    rest = look_shift(photograph[:3], generated[:3], n_resamples=50)
    assert result["coverage"] == {**dict.fromkeys(LOOKS, 0.75), "brightness": 1, "saturation": 1}
    assert result["sharpness_shift"] == pytest.approx(rest["sharpness_shift"])
    assert result["sharpness_shift_standardised"] == pytest.approx(rest["sharpness_shift_standardised"])
    assert result["sharpness_p"] == rest["sharpness_p"]


def test_a_figure_that_rests_on_one_photograph_has_no_interval(pairs):
    plain = np.full((COMMON, COMMON, 3), 90, dtype=np.uint8)
    given = {"prompt_id": [0, 0, 1], "image_seed": [0, 1, 0], "n_resamples": 20}
    result = look_shift([*pairs[0][:2], plain], [*pairs[1][:2], plain], **given)
    for name in ("sharpness_shift", "sharpness_shift_standardised"):
        assert name in result
        assert f"{name}_ci_low" not in result
    assert "brightness_shift_ci_low" in result


def test_without_edges_anywhere_and_with_one_photograph():
    plain = np.full((COMMON, COMMON, 3), 90, dtype=np.uint8)
    result = look_shift([plain], [plain + 20])
    assert result["brightness_shift"] == pytest.approx(20 / 255)
    assert "there is one alone" in result["notes"]["brightness_shift_standardised"]
    assert result["notes"]["sharpness_p"] == result["notes"]["sharpness_shift"] == "undefined: no row has it"
    assert not [name for name in result if name.endswith("_ci_low")]


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(6)))
def test_the_order_of_rows_does_not_matter_and_swapping_flips_the_sign(pairs, order):
    photograph, generated = pairs[0][:6], pairs[1][:6]
    one = look_shift(photograph, generated, prompt_id=range(6), n_resamples=20)
    other = look_shift([photograph[i] for i in order], [generated[i] for i in order], prompt_id=order, n_resamples=20)
    flat = {name: value for name, value in one.items() if isinstance(value, float | int)}
    assert {name: other[name] for name in flat} == pytest.approx(flat)
    swapped = look_shift(generated, photograph, prompt_id=range(6), n_resamples=20)
    for name in LOOKS:
        assert swapped[f"{name}_shift"] == pytest.approx(-one[f"{name}_shift"])
        assert swapped[f"{name}_p"] == one[f"{name}_p"]


IMAGE = np.full((COMMON, COMMON, 3), 90, dtype=np.uint8)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"photograph": []}, "photograph: expected at least one image, got none"),
        ({"generated": [IMAGE]}, "generated: expected 2 images like the photographs, got 1"),
        ({"photograph": "folder"}, "photograph: expected a list of images, got a str"),
        ({"photograph": PIL.Image.fromarray(IMAGE)}, "photograph: expected a list of images, got a Image"),
        ({"photograph": IMAGE}, r"photograph, row 0 \(counted from 0\): .*at least 384² pixels, got 384 x 3"),
        ({"photograph": [IMAGE, None]}, r"photograph, row 1 .*got object"),
        ({"group": ["a"]}, "group: expected 2 rows"),
        ({"prompt_id": [1, 1]}, r"row 1 .*repeats the key of row 0"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
    ],
)
def test_bad_input_gives_one_sentence(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        look_shift(**{"photograph": [IMAGE] * 2, "generated": [IMAGE] * 2, "n_resamples": 5} | bad)
    assert "\n" not in str(caught.value)
