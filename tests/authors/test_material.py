import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.authors.made import NUMBER, TEXT, png, write
from widespectrum.authors import import_dataset
from widespectrum.errors import InputError
from widespectrum.functional import aligned_preference, leaderboard_place, real_image_gap

CAPTION = {"anti_aesthetic_elements": datasets.List(TEXT), "clean_caption": TEXT, "anti_aesthetic_caption": TEXT}


PHOTOGRAPHS = {
    "image": datasets.Image(),
    "clean_image": datasets.Image(),
    "filename": TEXT,
    "query": datasets.List(TEXT),
    "caption": {**CAPTION, "thinking": TEXT},
    "image_reward": datasets.List(NUMBER),
    "human_score": NUMBER,
}


BLUR, LEAK = "clarity_and_focus.intentional_blur", "lighting_and_exposure.light_leak"


def photograph(name, real, clean, elements):
    kept = {"clean_caption": "a bus", "anti_aesthetic_caption": "a bus in a blur"} if elements else {}
    caption = dict.fromkeys(["thinking", *CAPTION]) | {"anti_aesthetic_elements": elements} | kept
    picture = {"bytes": png(0), "path": None}
    return {
        "image": picture,
        "clean_image": picture,
        "filename": name,
        "query": ["q"],
        "caption": caption,
        "image_reward": None if real is None else [real, clean],
        "human_score": 5.5,
    }


def test_real_images_are_ready_for_the_metric(place, tmp_path):
    made = [
        photograph("1.jpg", 4.0, 9.0, [BLUR]),
        photograph("2.jpg", None, None, []),
        photograph("3.jpg", 5.0, 8.0, [BLUR, LEAK, "blur"]),
        photograph("4.jpg", 8.0, 6.0, [LEAK]),
    ]
    out = tmp_path / "real.parquet"
    notices = import_dataset("aas_real_images", str(write(place, made, PHOTOGRAPHS)), out)
    assert notices == [
        "left out 1 photographs without elements",
        "left out labels that name no element of the taxonomy: blur (1)",
        "3 photographs, mean gap of HPSv3 +2.00 (the paper: +5.90)",
    ]
    table = pq.read_table(out).to_pydict()
    names = ("r_io_pa", "r_ia_pa", "elements", "prompt_id")
    result = real_image_gap(**{name: table[name] for name in names}, n_resamples=100)
    assert result["gap"] == 2.0
    assert {name: block["gap"] for name, block in result["by_element"].items()} == {BLUR: 4.0, LEAK: 0.5}
    assert table["anti_aesthetic_caption"] == ["a bus in a blur"] * 3


def test_real_images_with_flat_captions(place, tmp_path):
    nested = [photograph("1.jpg", 4.0, 9.0, [BLUR])]
    flat = [
        {"elements": each["caption"]["anti_aesthetic_elements"]}
        | {name: each["caption"][name] for name in ("clean_caption", "anti_aesthetic_caption")}
        | {name: each[name] for name in ("filename", "image_reward", "human_score")}
        for each in nested
    ]
    features = {name: kind for name, kind in {**PHOTOGRAPHS, **CAPTION}.items() if name in flat[0]}
    write(place / "flat", flat, {**features, "elements": datasets.List(TEXT)})
    write(place / "nested", nested, PHOTOGRAPHS)
    for name in ("flat", "nested"):
        import_dataset("aas_real_images", str(place / name), tmp_path / f"{name}.parquet")
    assert pq.read_table(tmp_path / "flat.parquet").equals(pq.read_table(tmp_path / "nested.parquet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_reward": [1.0]}, "row 1: image_reward must be a list of two HPSv3 scores, of the photograph and"),
        ({"image_reward": [1.0, float("nan")]}, "row 1: image_reward must be a finite number, got nan"),
        ({"human_score": 11.0}, "row 1: human_score must be a mean vote from 1 to 10, got 11.0"),
        ({"filename": ""}, "row 1: filename must be a text, got ''"),
        ({"filename": "9.jpg"}, "row 2: photograph '9.jpg' is already in"),
    ],
)
def test_bad_photographs(place, tmp_path, change, message):
    made = [photograph("1.jpg", 4.0, 9.0, [BLUR]) | change, photograph("9.jpg", 4.0, 9.0, [BLUR])]
    write(place, made, PHOTOGRAPHS)
    with pytest.raises(InputError) as error:
        import_dataset("aas_real_images", str(place), tmp_path / "real.parquet")
    assert message in str(error.value)


PICTURE = {"bytes": png(0), "path": None}


@pytest.mark.parametrize("nested", [False, True])
def test_paintings_are_ready_for_the_metric(place, tmp_path, nested):
    made, features = [], {"image": datasets.Image(), "caption": TEXT}
    kinds = {"hpsv3": datasets.List(NUMBER), "hpsv2": NUMBER, "image_reward": NUMBER}
    for number in range(3):
        values = {"hpsv3": [4.0 + number, -5.0], "hpsv2": 0.2, "image_reward": None if number else -0.1}
        made.append(
            {"image": PICTURE, "caption": f"a painting of {number}"} | ({"scores": values} if nested else values)
        )
    write(place, made, features | ({"scores": kinds} if nested else kinds))
    notices = import_dataset("lapis", str(place), tmp_path / "lapis.parquet")
    assert notices == [
        "3 paintings",
        "hpsv3: 3 scored, mean 5.00 (the paper: 5.86)",
        "hpsv2.1: 3 scored, mean 0.20",
        "imagereward: 1 scored, mean -0.10",
    ]
    table = pq.read_table(tmp_path / "lapis.parquet").to_pydict()
    result = leaderboard_place(table["hpsv3"], leaderboard={"a": 2, "b": 8}, prompt_id=table["prompt_id"])
    assert (result["mean_reward"], result["relative_place"], result["rank"]) == (5.0, 0.5, 2)


def test_columns_without_a_value_need_no_type(place, tmp_path):
    rows = [{"image": {"bytes": png(0), "path": None}, "caption": "a boat", "hpsv3": 1.0, "hpsv2": None}]
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), place / "train.parquet")
    notices = import_dataset("lapis", str(place), tmp_path / "lapis.parquet")
    assert notices[1:] == ["hpsv3: 1 scored, mean 1.00 (the paper: 5.86)", "hpsv2.1: 0 scored, no score"]


def test_two_columns_of_one_reward_model(place, tmp_path):
    both = {"caption": TEXT, "hpsv3": NUMBER, "HPSv3_reward": NUMBER}
    write(place, [{"caption": "c", "hpsv3": 1.0, "HPSv3_reward": 2.0}], both)
    with pytest.raises(InputError, match="'hpsv3' and 'HPSv3_reward' both hold scores of hpsv3; remove one"):
        import_dataset("lapis", str(place), tmp_path / "lapis.parquet")


def test_critical_pairs_are_ready_for_the_metric(place, tmp_path):
    both = {"DanceFlux": NUMBER, "Flux Krea": NUMBER}
    features = {"prompt": TEXT, "DanceFlux": datasets.Image(), "Flux Krea": datasets.Image()}
    made = [
        {
            "prompt": f"no to {number}",
            "DanceFlux": PICTURE,
            "Flux Krea": PICTURE,
            "hpsv3": {"DanceFlux": 15.0 + number, "Flux Krea": 12.0},
            "image_reward": {"DanceFlux": 1.0, "Flux Krea": 1.0 + number},
        }
        for number in range(4)
    ]
    write(place, made, features | {"hpsv3": both, "image_reward": both})
    out = tmp_path / "critical.parquet"
    notices = import_dataset("critical_comparsion", str(place), out)
    assert notices == ["4 prompts", "hpsv3 takes DanceFlux 4 times", "imagereward takes DanceFlux 0 times"]
    table = pq.read_table(out).to_pandas()
    chosen = table[table["reward_model"] == "hpsv3"]
    columns = {name: chosen[name].tolist() for name in ("r_aligned", "r_base", "prompt_id")}
    result = aligned_preference(**columns, n_resamples=100)
    assert (result["aligned_preferred_rate"], result["mean_gap"]) == (1.0, 4.5)
