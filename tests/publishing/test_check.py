"""What forbids publication: one broken folder for every code, and a good one without a problem."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import datasets
import pytest

from widespectrum.errors import InputError
from widespectrum.published import published_path
from widespectrum.publishing import Source, check, configs, read_provenance, save_config, write_provenance
from widespectrum.publishing.check import problems
from widespectrum.publishing.croissant import write_croissant

from .conftest import RIGHTS, pictures, terms, words

PARQUET = "words/test-00000-of-00001.parquet"
CROISSANT = "croissant.json"


def edit(name, old, new):
    """Replace text in a file of the folder."""

    def change(folder):
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


def write(name, content):
    def change(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def remove(name):
    def change(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def terms_of(config, **changes):
    def change(folder):
        write_provenance(folder / config, terms(**changes))

    return change


def both(*changes):
    def change(folder):
        for each in changes:
            each(folder)

    return change


def without_card(folder):
    """A config that was built, and no card since."""
    save_config(folder, "new", {"test": words(1)}, terms())
    recorded(folder)


def recorded(folder):
    """croissant.json once more, so that it is not what is wrong."""
    write_croissant(folder, "wide_spectrum_prompts")


def damaged(folder):
    """A file was cut off, and croissant.json says that this is how it should be."""
    path = folder / PARQUET
    before, after = path.read_bytes(), path.read_bytes()[:-20]
    path.write_bytes(after)
    edit(CROISSANT, *(hashlib.sha256(content).hexdigest() for content in (before, after)))(folder)


def private(folder):
    """A private split, with a card of its own."""
    (folder / "words").rename(folder / "private")
    edit("README.md", "words", "private")(folder)
    recorded(folder)


def nested(folder):
    """Images in a list, which no rights cover."""
    features = datasets.Features({"images": datasets.List(datasets.Image())})
    table = datasets.Dataset.from_list([{"images": [pictures(1)[0]["image"]]}], features=features)
    save_config(folder, "words", {"test": table, "lite": table}, terms())
    recorded(folder)


def configs_as(text):
    """Another text in the place of the card's configs."""

    def change(folder):
        card = (folder / "README.md").read_text(encoding="utf-8")
        card, count = re.subn(r"(?s)\nconfigs:\n.*\ndataset_info:", f"\n{text}\ndataset_info:", card)
        assert count == 1
        (folder / "README.md").write_text(card, encoding="utf-8")

    return change


def built_again(folder):
    """A config was built once more, and the card was not."""
    save_config(folder, "words", {"test": words(6), "lite": words(2)}, terms())


def file_more(folder):
    """A file that no build made."""
    shutil.copy(folder / PARQUET, folder / "words" / "more.parquet")


def emptied(folder):
    """A card of nothing."""
    for config in ("words", "pictures"):
        shutil.rmtree(folder / config)
    configs_as("configs: []")(folder)
    recorded(folder)


def shard_lost(folder):
    """The second of two shards is gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configs, "SHARD_BYTES", 1)
        save_config(folder, "words", {"test": words(2), "lite": words(1)}, terms())
    recorded(folder)
    (folder / "words/test-00001-of-00002.parquet").unlink()


TERMS_OF_WORDS = "words/provenance.json"
UNPINNED = {"models": {"writer": "chat:small", "editor": "chat:large@v2"}}
BROKEN = [
    ("card-missing", "README.md", "there is no card; build the folder again", remove("README.md")),
    ("card-broken", "README.md", "its front matter cannot be read", edit("README.md", "license: cc", "license: [cc")),
    ("card-broken", "README.md", "its front matter cannot be read", write("README.md", b"---\nlicense: \xff\n---\n")),
    ("card-broken", "README.md", "it has no front matter", write("README.md", b"# A dataset\n")),
    ("card-broken", "README.md", "its configs are not as the build writes them", configs_as("")),
    ("card-broken", "README.md", "its configs are not as the build writes them", configs_as("configs: [words]")),
    (
        "card-broken",
        "README.md",
        "its configs are not as the build writes them",
        configs_as("configs: [{config_name: words, data_files: words/*.parquet}]"),
    ),
    ("license-missing", "README.md", "the front matter names no", edit("README.md", "license: cc-by-4.0\n", "")),
    ("license-missing", TERMS_OF_WORDS, "the config has no license", terms_of("words", license="")),
    ("model-unknown", TERMS_OF_WORDS, "model 'writer': ", terms_of("words", models={"writer": "nothing"})),
    ("revision-unpinned", TERMS_OF_WORDS, "model 'writer' is not pinned to", terms_of("words", **UNPINNED)),
    ("rights-unclear", "pictures/provenance.json", "images are inside, but nothing", terms_of("pictures")),
    ("rights-unclear", TERMS_OF_WORDS, "images are inside, but nothing", nested),
    (
        "rights-unclear",
        "pictures/provenance.json",
        "images of 'cat': unclear: nobody knows; leave these images out, or state their rights, when you build it",
        terms_of("pictures", image_rights={"cat": "unclear: nobody knows", "dog": "clear: mine"}),
    ),
    ("private", "private", "a private split must stay private", private),
    ("parquet-broken", PARQUET, "cannot be read", damaged),
    ("provenance-missing", "words", "has no provenance.json, so nobody knows", remove(TERMS_OF_WORDS)),
    ("provenance-missing", "words", "is damaged (Expecting value: line 1", write(TERMS_OF_WORDS, b"")),
    ("provenance-missing", "words", "is damaged (a value of", terms_of("words", models={"writer": 3})),
    ("card-stale", "README.md", "the config 'new' is not on the card", without_card),
    (
        "card-stale",
        "README.md",
        "names pictures/test-*.parquet, which the folder does not hold; build the config 'pictures' again",
        both(remove("pictures"), recorded),
    ),
    ("croissant-missing", CROISSANT, "missing or damaged", remove(CROISSANT)),
    ("croissant-missing", CROISSANT, "missing or damaged", write(CROISSANT, b"[1]")),
    ("croissant-stale", PARQUET, "has changed since", built_again),
    ("croissant-stale", "words/test-00001-of-00002.parquet", "was there when", shard_lost),
    ("croissant-stale", "words/more.parquet", "has changed since", file_more),
    ("empty", ".", "there is no config with Parquet files", emptied),
    ("script", "words.py", "refuses repositories with a loading script", write("words.py", b"")),
    ("script", "words/load.py", "refuses repositories with a loading script", write("words/load.py", b"")),
    ("unfinished", "words/.tmp-test.parquet", "left over from a build", write("words/.tmp-test.parquet", b"")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "where", "message", "breaking"), BROKEN, ids=[f"{n}-{case[0]}" for n, case in enumerate(BROKEN)]
)
def test_a_broken_folder(good, code, where, message, breaking):
    breaking(good)
    found = problems(good)
    assert [(problem.code, problem.where) for problem in found] == [(code, where)], list(map(str, found))
    text = str(found[0])
    assert text.startswith(f"{where}: ")
    assert message in text
    assert text.endswith(f"; {found[0].fix} [{code}]")
    assert "\n" not in text


def test_every_code_has_a_broken_folder():
    codes = set(re.findall(r'Problem\(\s*"([\w-]+)"', Path(check.__file__).read_text(encoding="utf-8")))
    assert codes == {code for code, *_ in BROKEN} | {"file-missing"}


def test_a_good_folder_has_none_and_hidden_folders_do_not_count(good):
    assert problems(good) == []
    (good / ".work").mkdir()
    shutil.copy(good / PARQUET, good / ".work" / "rows.parquet")
    (good / ".work" / ".tmp-rows").touch()
    (good / ".work" / "steps.py").touch()
    assert problems(good) == []


def test_all_problems_are_found_at_once(good):
    (good / "README.md").unlink()
    (good / CROISSANT).unlink()
    write_provenance(good / "words", terms(license="", sources=(Source(name="x", license=""),), **UNPINNED))
    write_provenance(good / "pictures", terms(image_rights={"a": "unclear: ?", "b": "perhaps"}))
    assert sorted(problem.code for problem in problems(good)) == [
        "card-missing", "croissant-missing", "license-missing", "revision-unpinned", "rights-unclear", "rights-unclear"
    ]  # fmt: skip


def test_terms_are_read_as_they_were_written(good):
    made = terms(**RIGHTS, sources=(Source(name="x", license="CC0", url="u", sha256="0"),), options={"a": [1, None]})
    write_provenance(good / "words", made)
    assert read_provenance(good / "words") == made


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*/nothing to publish: build it first"):
        problems(tmp_path / "nothing")


@pytest.fixture
def space(tmp_path):
    return shutil.copytree(published_path("metrics", "judge_agreement"), tmp_path / "judge_agreement")


@pytest.mark.parametrize(
    ("breaking", "expected"),
    [
        (lambda folder: None, []),
        (remove("app.py"), [("file-missing", "app.py")]),
        (remove("requirements.txt"), [("file-missing", "requirements.txt")]),
        (remove("README.md"), [("card-missing", "README.md")]),
        (edit("README.md", "app_file: app.py\n", ""), [("card-broken", "README.md")]),
        (edit("README.md", "app_file: app.py\n", "app_file: main.py\n"), [("file-missing", "main.py")]),
        (edit("README.md", "sdk: gradio\n", ""), [("card-broken", "README.md")]),
    ],
)
def test_a_space(space, breaking, expected):
    breaking(space)
    assert [(problem.code, problem.where) for problem in problems(space, "space")] == expected


@pytest.mark.parametrize("name", sorted(path.parent.name for path in published_path("metrics").glob("*/README.md")))
def test_our_spaces_are_good(name):
    assert problems(published_path("metrics", name), "space") == []


def test_croissant_of_the_check_is_the_one_that_is_written(good):
    listed = json.loads((good / CROISSANT).read_text(encoding="utf-8"))["distribution"]
    assert {entry["@id"] for entry in listed} == {
        path.relative_to(good).as_posix() for path in good.glob("*/*.parquet")
    }
