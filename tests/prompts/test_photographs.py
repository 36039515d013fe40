from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from widespectrum.errors import InputError, UnknownNameError
from widespectrum.generators.effects import EFFECTS, VISIBLE_DIMENSIONS
from widespectrum.prompts import PROMPT_SETS, load_prompt_set, open_photograph, prompt_set
from widespectrum.prompts import photographs as module
from widespectrum.types import DIMENSIONS, Prompt, digest

SET = load_prompt_set("photographs")
WIDE = [prompt for prompt in SET.prompts if prompt.role == "wide_spectrum"]
TEMPLATES = json.loads(Path(module.__file__).with_name("templates.json").read_text(encoding="utf-8"))


def named_effects(text: str) -> list[str]:
    return [name for name in EFFECTS if re.search(rf"\b{name}\b", text, re.IGNORECASE)]


def picture(path: Path, size: tuple[int, int] = (40, 30), **options: object) -> Path:
    Image.linear_gradient("L").resize(size).convert("RGB").save(path, **options)
    return path


def test_ninety_one_pairs_with_both_roles_and_a_photograph() -> None:
    roles = Counter((prompt.pair_id, prompt.role) for prompt in SET.prompts)
    assert len(WIDE) == 91
    assert len(SET.prompts) == 182
    assert set(roles.values()) == {1}
    assert set(SET.photographs) == {prompt.pair_id for prompt in SET.prompts}
    assert len({prompt.prompt_id for prompt in SET.prompts}) == 182


def test_every_dimension_once_alone_and_balanced_combinations() -> None:
    alone = Counter((prompt.subset, *prompt.dimensions) for prompt in WIDE if len(prompt.dimensions) == 1)
    assert set(alone.values()) == {1}
    assert len(alone) == 7 * len(DIMENSIONS)
    sizes = Counter((prompt.subset, len(prompt.dimensions)) for prompt in WIDE)
    assert all(sizes[name, 2] == sizes[name, 3] == 1 for name in {prompt.subset for prompt in WIDE})
    combined = Counter(name for prompt in WIDE if len(prompt.dimensions) > 1 for name in prompt.dimensions)
    assert set(combined) == set(VISIBLE_DIMENSIONS)
    assert max(combined.values()) - min(combined.values()) <= 1


@pytest.mark.parametrize("prompt", WIDE, ids=lambda prompt: prompt.pair_id)
def test_text_names_exactly_the_requested_effects(prompt: Prompt) -> None:
    visible = sorted(name for name in prompt.dimensions if name in VISIBLE_DIMENSIONS)
    assert sorted(EFFECTS[name].dimension for name in named_effects(prompt.text)) == visible
    assert len(prompt.text.split()) < 70
    assert prompt.text.endswith(".")
    assert prompt.pair_id == f"{prompt.subset}/{'+'.join(sorted(prompt.dimensions))}"


def test_the_ids_of_the_texts_stay() -> None:
    assert digest(sorted(prompt.prompt_id for prompt in SET.prompts))[:16] == "1add1b8370ac50e0"


@pytest.mark.parametrize("prompt", WIDE, ids=lambda prompt: prompt.pair_id)
def test_the_words_of_each_effect_stand_once_in_the_text_and_name_no_other(prompt: Prompt) -> None:
    assert len(prompt.effects) == len(prompt.dimensions)
    for dimension, words in zip(prompt.dimensions, prompt.effects, strict=True):
        assert prompt.text.count(words) == 1
        assert re.search(rf"\b{re.escape(words)}\b", prompt.text)
        visible = [dimension] if dimension in VISIBLE_DIMENSIONS else []
        assert [EFFECTS[name].dimension for name in named_effects(words)] == visible
    starts = sorted((prompt.text.index(words), len(words)) for words in prompt.effects)
    assert all(at + length < following for (at, length), (following, _) in pairwise(starts))


def test_texts_differ_and_effects_occur_about_equally() -> None:
    assert len({prompt.text for prompt in WIDE}) == len(WIDE)
    for dimension in VISIBLE_DIMENSIONS:
        counts = Counter(name for prompt in WIDE for name in named_effects(prompt.text))
        of_dimension = [counts[name] for name, effect in EFFECTS.items() if effect.dimension == dimension]
        assert max(of_dimension) - min(of_dimension) <= 1


def test_photographs_open_and_revision_follows_text_and_bytes(tmp_path: Path) -> None:
    for path in set(SET.photographs.values()):
        assert open_photograph(path).mode == "RGB"
    assert re.fullmatch(r"[0-9a-f]{64}", SET.revision)
    assert load_prompt_set("photographs").revision == SET.revision
    picture(tmp_path / "a.png")
    first = load_prompt_set("photographs", photos=tmp_path).revision
    picture(tmp_path / "a.png", size=(41, 30))
    assert load_prompt_set("photographs", photos=tmp_path).revision != first


def test_photographs_match_what_the_packages_serve() -> None:
    import numpy as np

    data = importlib.import_module("skimage.data")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        found = open_photograph(SET.photographs[f"{name}/clarity"])
        assert np.array_equal(np.asarray(found), getattr(data, name)())


def test_neither_skimage_nor_sklearn_is_imported() -> None:
    code = (
        "import sys; from widespectrum.prompts import load_prompt_set as load;"
        "assert len(load('photographs').prompts) == 182;"
        "assert not {'skimage', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_set_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="photographs"):
        load_prompt_set("photograph")
    assert all(source.summary for source in PROMPT_SETS.values())


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"skimage.*widespectrum\[demo\]"):
        load_prompt_set("photographs")


def test_own_photographs_get_every_dimension_and_rotating_effects(tmp_path: Path) -> None:
    for name in ("a_red-bus.png", "b.JPG", "c.webp", "d.bmp"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a photograph", encoding="utf-8")
    picture(tmp_path / ".hidden.png")
    captions = tmp_path / "captions.csv"
    captions.write_text("file,caption\nb.JPG,the sea at night!\n", encoding="utf-8")
    found = load_prompt_set("photographs", photos=tmp_path, captions=captions)
    wide = [prompt for prompt in found.prompts if prompt.role == "wide_spectrum"]
    assert len(wide) == 4 * len(DIMENSIONS)
    assert {name for prompt in wide for name in named_effects(prompt.text)} == set(EFFECTS)
    texts = {prompt.pair_id: prompt.text for prompt in wide}
    assert texts["a_red-bus.png/clarity"].startswith("A red bus. A heavy gaussian blur")
    assert texts["b.JPG/clarity"].startswith("The sea at night! Strong motion blur")
    originals = {prompt.subset: prompt.text for prompt in found.prompts if prompt.role == "original"}
    assert originals == {"a_red-bus.png": "a red bus", "b.JPG": "the sea at night!", "c.webp": "c", "d.bmp": "d"}
    assert found.photographs["c.webp/emotion"] == tmp_path / "c.webp"


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_templates_name_one_effect_each(dimension: str) -> None:
    named = [named_effects(sentence) for sentence in TEMPLATES[dimension]]
    effects = [[name] for name, effect in EFFECTS.items() if effect.dimension == dimension]
    assert sorted(named) == sorted(effects) if effects else not any(named)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file\na.png\n", "no column 'caption'"),
        ("file,caption\na.png,x\na.png,y\n", "row 3: 'a.png' already has a caption"),
        ("file,caption\nb.png,x\n", "row 2: there is no photograph 'b.png'"),
        ("file,caption\na.png,  \n", "row 2: the caption of 'a.png' is empty"),
        ("file,caption\na.png,x,y\n", "row 2: expected 2 cells"),
        ('file,caption\na.png,"two\nlines"\n', "row 2: the caption of 'a.png' must be one line of printable text"),
        ("file,caption\na.png,a\x1b[2J\n", r"row 2: the caption of 'a.png' must be .*, got 'a\\x1b\[2J'"),
        ("file,caption\n", "no rows"),
    ],
)
def test_bad_captions(tmp_path: Path, rows: str, message: str) -> None:
    picture(tmp_path / "a.png")
    captions = tmp_path / "captions.csv"
    captions.write_text(rows, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        load_prompt_set("photographs", photos=tmp_path, captions=captions)
    assert "captions.csv" in str(error.value)


def test_wrong_places_are_shown_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    where = re.escape(str(tmp_path))
    start = "relative paths start at the folder in which the command runs"
    with pytest.raises(InputError, match=f"found none at {where}/absent; {start}"):
        load_prompt_set("photographs", photos=Path("absent"))
    with pytest.raises(InputError, match=rf"got the file {where}/a\.png; name the folder that holds it"):
        load_prompt_set("photographs", photos=Path("a.png"))
    with pytest.raises(InputError, match=rf"no file at {where}/absent\.csv; {start}"):
        load_prompt_set("photographs", photos=tmp_path, captions=Path("absent.csv"))
    (tmp_path / "captions").mkdir()
    with pytest.raises(InputError, match=f"expected a table .*, got the folder {where}/captions"):
        load_prompt_set("photographs", photos=tmp_path, captions=Path("captions"))


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photographs in"):
        load_prompt_set("photographs", photos=tmp_path)
    with pytest.raises(InputError, match="say in which folder"):
        load_prompt_set("photographs", captions=tmp_path / "captions.csv")
    for name in ("__-_.png", "a\x1b[2J.png"):
        path = picture(tmp_path / name)
        with pytest.raises(InputError, match="gives no caption") as error:
            load_prompt_set("photographs", photos=tmp_path)
        assert str(error.value).isprintable()
        path.unlink()


def test_reading_and_hashing_show_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int]] = []

    def bar(items: Collection[Any], desc: str, **_: object) -> Collection[Any]:
        shown.append((desc, len(items)))
        return items

    monkeypatch.setattr(module, "tqdm", bar)
    monkeypatch.setattr(prompt_set, "tqdm", bar)
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    assert load_prompt_set("photographs", photos=tmp_path).revision
    assert shown == [("read photographs", 2), ("hash photographs", 2)]


def test_damaged_photograph_is_named(tmp_path: Path) -> None:
    whole = picture(tmp_path / "whole.jpg", size=(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.jpg is damaged or cut off"):
        load_prompt_set("photographs", photos=tmp_path)
