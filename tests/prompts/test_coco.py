import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from widespectrum.errors import InputError
from widespectrum.prompts.coco import draw_captions, read_captions, rewrite_captions, unusable_row
from widespectrum.prompts.rewriting import TemplateRewriter
from widespectrum.types import prompt_id

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "sources" / "coco" / "captions_val2017.json.xz"
NOUNS = ("dog", "cat", "horse", "boat", "train", "lamp", "child", "baker", "bridge", "tree")


def annotations(images=10, each=3):
    return [
        {"id": 100 * image + turn, "image_id": image, "caption": f"A {NOUNS[image]} stands in place {turn}."}
        for image in range(images)
        for turn in range(each)
    ]


@pytest.fixture
def caption_file(tmp_path):
    def write(entries, name="captions.json"):
        path = tmp_path / name
        content = json.dumps({"info": {}, "annotations": entries}).encode()
        path.write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
        return path

    return write


@pytest.mark.parametrize("name", ["captions.json", "captions.json.xz"])
def test_reading(caption_file, name):
    captions = read_captions(caption_file([{"id": 7, "image_id": 1, "caption": " A  dog\n runs. "}], name))
    assert [(c.caption_id, c.image_id, c.text, c.pair_id) for c in captions] == [(7, 1, "A dog runs.", "coco-7")]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "holds no list of 'annotations'"),
        (["A dog"], "annotation 1 must be an object with id, image_id and caption; got 'A dog'"),
        ([{"id": 1, "image_id": 1}], "annotation 1: caption must be str; got None"),
        ([{"id": "1", "image_id": 1, "caption": "A dog"}], "annotation 1: id must be int; got '1'"),
        ([*annotations(2, 1), annotations(2, 1)[0]], "the caption id 0 occurs 2 times"),
    ],
)
def test_captions_that_cannot_be_read(caption_file, entries, message):
    with pytest.raises(InputError, match=r"captions\.json") as error:
        read_captions(caption_file(entries))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b"{"), ("a.json", b"\xff\xfe"), ("a.json.xz", b"no xz"), ("a.json", b"[1]")]
)
def test_files_that_are_no_caption_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json"):
        read_captions(path)
    with pytest.raises(InputError, match="no caption file at"):
        read_captions(tmp_path / "none.json")


def test_every_image_gives_one_caption_before_any_gives_a_second_one(caption_file):
    captions = read_captions(caption_file(annotations()))
    drawn, passed_over = draw_captions(captions, 25, seed=1)
    assert passed_over == {}
    assert len(set(drawn)) == 25
    for first in (10, 20):
        assert len({caption.image_id for caption in drawn[first - 10 : first]}) == 10
    assert drawn == draw_captions(captions, 25, seed=1)[0]
    assert drawn != draw_captions(captions, 25, seed=2)[0]
    with pytest.raises(InputError, match="31 pairs were asked for, but only 30 captions"):
        draw_captions(captions, 31, seed=1)


def test_captions_that_cannot_be_used_are_listed(caption_file):
    texts = ["Two words", "A dog runs home.", "a dog runs HOME", "A dog\u2028 runs\x07 home now.", "so " * 61]
    entries = [{"id": n, "image_id": n, "caption": text} for n, text in enumerate(texts)]
    drawn, passed_over = draw_captions(read_captions(caption_file(entries)), None, seed=0)
    reasons = Counter(passed_over.values())
    assert reasons == {
        "2 words; expected 3 to 60": 1,
        "repeats another caption": 1,
        "not one line of printable text": 1,
        "61 words; expected 3 to 60": 1,
    }
    assert len(drawn) == 1
    row = unusable_row(next(iter(passed_over)), "why")
    assert row["problems"] == ["caption: why"]
    assert row["wide_spectrum_prompt"] == ""


def test_rows_are_pairs_that_pass_the_rule_check_and_do_not_depend_on_one_another(caption_file):
    drawn, _ = draw_captions(read_captions(caption_file(annotations())), 30, seed=0)
    rows = list(rewrite_captions(drawn, TemplateRewriter(seed=3), seed=3))
    assert [row["original_prompt"] for row in rows] == [caption.text for caption in drawn]
    assert all(row["problems"] == [] for row in rows)
    for row in rows:
        assert row["wide_spectrum_prompt"].startswith(row["original_prompt"])
        assert all(phrase in row["wide_spectrum_prompt"] for phrase in row["effects"])
        assert len(row["effects"]) == len(row["dimensions"]) == len(row["negative_prompt"].split(", "))
        expected = prompt_id(row["pair_id"], "wide_spectrum", row["wide_spectrum_prompt"], tuple(row["dimensions"]))
        assert row["wide_spectrum_prompt_id"] == expected
    assert list(rewrite_captions(drawn, TemplateRewriter(seed=3), seed=3)) == rows
    assert list(rewrite_captions(drawn, TemplateRewriter(seed=4), seed=3)) != rows


@pytest.mark.skipif(not REAL.exists(), reason="the official caption file is not here")
def test_the_official_captions():
    captions = read_captions(REAL)
    assert (len(captions), len({caption.image_id for caption in captions})) == (25014, 5000)
    drawn, passed_over = draw_captions(captions, None, seed=0)
    assert len(drawn) + len(passed_over) == 25014
    rows = list(rewrite_captions(drawn[:4000], TemplateRewriter(seed=0), seed=0))
    counts = Counter(name for row in rows for name in row["dimensions"]).values()
    assert max(counts) - min(counts) <= 3
    assert sum(bool(row["problems"]) for row in rows) <= 5
