"""The configs `photo` and `emotion_edits` from the command line: built, loaded, stopped, refused."""

import hashlib
import os
import re
import subprocess
import sys

import datasets
import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from tests.chat_server import serving
from widespectrum import emotion_edits, photo_prompts
from widespectrum.cli import app
from widespectrum.generators import GENERATORS
from widespectrum.generators.identity import Identity
from widespectrum.publishing import features, load_split, read_provenance
from widespectrum.publishing.check import problems
from widespectrum.registry import Entry
from widespectrum.types import ModelSpec

NAME = "wide_spectrum_prompts"
PROMPT = " ".join(["A red bus stands askew in heavy rain, its windows fogged over,"] * 6)
DESCRIBED = {"caption": "A red bus on a wet street.", "prompt": PROMPT}
TEMPLATE = {"template": "A woman in a green coat before a gray wall, with a clearly [emotion] expression."}
VERBS = {"photo": ("--photos",), "emotion_edits": ("--generator", "identity[size=32]", "--faces")}
DIES = """
import os, sys
from widespectrum.cli import main
from widespectrum.generators.identity import Identity
real, batches = Identity.generate, iter(range(3))
Identity.generate = lambda *a, **b: real(*a, **b) if next(batches, None) is not None else os._exit(9)
main()
"""

pytestmark = [
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class FromText(Identity):
    """Says that it needs no image to start from."""

    needs_images = False


class Unpinned(Identity):
    """A model of which nobody wrote down the revision."""

    def __init__(self, *, size=32):
        super().__init__(size=size)
        self.spec = ModelSpec(adapter="identity", name="editor", revision=None, params={"size": size})


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: False)
    for model in (FromText, Unpinned):
        monkeypatch.setitem(GENERATORS, model.__name__, Entry(target=f"{__name__}:{model.__name__}", summary="a test"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """`ann.png`, `bo.png` and `cut.png`, which is none."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("ann.png", "bo.png"):
        PIL.Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    (folder / "cut.png").write_text("no image")
    return folder


def reply(body):
    """What fits the instruction of either config."""
    return TEMPLATE if "`template`" in body["messages"][0]["content"] else DESCRIBED


@pytest.fixture
def server():
    with serving(reply) as running:
        yield running


def command(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def build(verb, pictures, out, server, *options):
    """Build a config; where `options` name an option of the verb again, theirs counts."""
    return command("build", NAME, verb, *VERBS[verb], pictures, "--vlm", server.endpoint, "--out", out, *options)


def built(*arguments):
    result = build(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def load(out, config, tmp_path):
    return datasets.load_dataset(str(out), config, split="test", cache_dir=str(tmp_path / "cache"))


def card_section(out, config):
    """What the card says of a config, on one line."""
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "$" not in text
    return " ".join(text.partition(f"## The config `{config}`\n")[2].partition("\n## ")[0].split())


def test_photographs_become_a_config_that_loads_and_may_be_published(pictures, server, tmp_path):
    out = tmp_path / "out"
    assert built("photo", pictures, out, server) == (
        f"photographs: 3; each is one request or more to {server.endpoint}, unless it was answered before\n"
        f"{NAME}: 2 rows in {out}/photo, 1 left out: {out}/photo/rejected.csv\n"
    )
    loaded = load(out, "photo", tmp_path)
    assert loaded.features == features(photo_prompts.features())
    assert [row["file"] for row in loaded] == ["ann.png", "bo.png"]
    assert {row["prompt"] for row in loaded} == {PROMPT}
    header, line = (out / "photo" / "rejected.csv").read_text(encoding="utf-8").splitlines()
    assert (header, line.partition(" ")[0]) == ("file,reason", 'cut.png,"cut.png')
    section = card_section(out, "photo")
    assert "Photo-to-prompt: 2 photographs, each described by the model `org/tiny` " in section
    assert "| caption | 7 | 7 | 7 | | prompt | 72 | 72 | 72 |" in section
    assert "Left out: 1, each listed with its reason in `photo/rejected.csv`." in section
    assert problems(out) == []


def test_photographs_inside_are_the_files_and_nothing_left_out_leaves_no_list(pictures, server, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    built("photo", pictures, out, server)
    whole.mkdir()
    for name in ("ann.png", "bo.png"):
        (whole / name).write_bytes((pictures / name).read_bytes())
    told = built("photo", whole, out, server, "--with-images", "--rights", "taken by me, CC BY 4.0")
    assert told.endswith(f"2 rows in {out}/photo, none left out\n")
    assert len(server.requests) == 2
    assert not (out / "photo" / "rejected.csv").exists()
    assert "Nothing was left out." in card_section(out, "photo")
    raw = load(out, "photo", tmp_path).cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == [(whole / row["file"]).read_bytes() for row in raw]
    assert read_provenance(out / "photo").image_rights == {"the photographs": "clear: taken by me, CC BY 4.0"}
    assert "| inside |" in (out / "README.md").read_text(encoding="utf-8")
    assert problems(out) == []


def test_faces_become_edits_there_and_back(pictures, server, tmp_path):
    out = tmp_path / "out"
    options = ("--emotion", "sad", "--emotion", "angry", "--seed", 3, "--seed", 4, "--rights", "mine")
    told = built("emotion_edits", pictures, out, server, *options)
    assert f"faces: 3; each is one request or more to {server.endpoint} and 8 edits by identity[size=32]" in told
    assert told.endswith(f"16 rows in {out}/emotion_edits, 1 left out: {out}/emotion_edits/rejected.csv\n")
    loaded = load(out, "emotion_edits", tmp_path)
    assert loaded.features == features(emotion_edits.FEATURES)
    assert {(row["face"], row["emotion"], row["direction"], row["seed"]) for row in loaded} == {
        (face, emotion, direction, seed)
        for face in ("ann.png", "bo.png")
        for emotion in ("sad", "angry")
        for direction in ("forward", "reverse")
        for seed in (3, 4)
    }
    assert {row["image"].size for row in loaded} == {(32, 24)}
    for row in loaded.cast_column("image", datasets.Image(decode=False)):
        assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["image_id"]
    section = card_section(out, "emotion_edits")
    assert "16 edits of 2 faces, by the generator named under Provenance (seeds: 3, 4)." in section
    assert "The faces show one emotion, happy:" in section
    assert "| angry | 4 | 4 | 8 | | sad | 4 | 4 | 8 | | all | 8 | 8 | 16 |" in section
    provenance = read_provenance(out / "emotion_edits")
    assert provenance.models == {"identity[size=32]": "identity:identity@v1?size=32"}
    assert provenance.options["emotions"] == "sad, angry"
    assert problems(out) == []


@pytest.mark.parametrize(
    ("verb", "options", "problem"),
    [
        ("photo", ("--with-images",), "photo/provenance.json: images of 'the photographs': unclear: nobody stated "),
        ("emotion_edits", ("--rights", " "), "emotion_edits/provenance.json: images of 'the faces and their edits': "),
        (
            "emotion_edits",
            ("--rights", "mine", "--generator", "Unpinned"),
            "emotion_edits/provenance.json: model 'Unpinned' is not pinned to a revision: identity:editor",
        ),
    ],
)
def test_what_may_not_be_published_is_built_and_refused(pictures, server, tmp_path, verb, options, problem):
    built(verb, pictures, tmp_path / "out", server, *options)
    result = command("publish", NAME, "--repo", f"acme/{NAME}", "--from", tmp_path / "out")
    assert result.exit_code == 2
    first, last = result.stderr.splitlines()
    assert first.startswith(problem)
    assert last == f"error: {tmp_path / 'out'} has a problem, so nothing was sent"


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("photo", ("--photos", "nowhere"), "expected a folder with photographs, found none at "),
        ("photo", ("--photos", "."), "no photographs in .; expected files ending in .bmp, "),
        ("photo", ("--vlm", "gpt-5"), "'gpt-5' is not an endpoint: write it as "),
        ("photo", ("--vlm", "openai:m@https://example.org/v1"), "openai:m@https://example.org/v1 needs an API key: "),
        ("emotion_edits", ("--faces", "nowhere"), "expected a folder with photographs, found none at "),
        ("emotion_edits", ("--faces", "."), "no photographs in .; expected files ending in .bmp, "),
        ("emotion_edits", ("--vlm", "gpt-5"), "'gpt-5' is not an endpoint: write it as "),
        ("emotion_edits", ("--generator", "identiti"), "unknown generator 'identiti': did you mean identity?"),
        ("emotion_edits", ("--generator", "identity[side=3]"), "generator 'identity' has no option 'side'"),
        ("emotion_edits", ("--generator", "FromText"), "FromText starts from text; emotion edits need a generator "),
        ("emotion_edits", ("--start", "sad"), "the faces must be happy or neutral to start with; got 'sad'"),
        ("emotion_edits", ("--emotion", "glad"), "expected each emotion once, out of sad, angry, "),
        ("emotion_edits", ("--size", 3), "emotion_edits: size must be a whole number from 16 to 8192 pixels; got 3"),
        (
            "emotion_edits",
            ("--generator", "photo-effects[size=32]"),
            "photo-effects[size=32] refused all 10 edits; the first, ann.png to sad: classical image processing cannot "
            "change emotion; choose another --generator",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_makes_no_config(pictures, server, tmp_path, monkeypatch, verb, options, message):
    monkeypatch.chdir(tmp_path)
    if "photo-effects" in str(options):
        pytest.importorskip("skimage")
    result = build(verb, pictures, "out", server, *options)
    assert result.exit_code == 2
    assert re.fullmatch(rf"error: {re.escape(message)}[^\n]*\n", result.stderr)
    assert not (tmp_path / "out" / verb).exists()
    assert not (tmp_path / "out" / "README.md").exists()


def test_an_endpoint_that_does_not_answer_is_no_mistake_of_the_user(pictures, server, tmp_path):
    result = build("photo", pictures, tmp_path / "out", server, "--vlm", "openai:m@http://127.0.0.1:9/v1")
    assert result.exit_code == 1
    assert "questions got no answer; the last: openai:m@http://127.0.0.1:9/v1 did not answer" in result.stderr
    assert result.stderr.endswith("make sure that it is running, and run again\n")


def test_a_build_that_is_killed_goes_on(pictures, server, tmp_path):
    """Killed while the last images are made: no reply is asked for and no image made again."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    arguments = ["build", NAME, "emotion_edits", *VERBS["emotion_edits"], pictures, "--vlm", server.endpoint]
    command_line = [sys.executable, "-c", DIES, *map(str, arguments), "--out", str(out)]
    done = subprocess.run(command_line, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 9, done.stderr
    parts = {path: path.stat().st_mtime_ns for path in out.rglob("images/*.parquet")}
    assert (len(server.requests), len(parts)) == (2, 3)
    assert not (out / "emotion_edits").exists()
    assert "20 rows" in built("emotion_edits", pictures, out, server)
    assert len(server.requests) == 2
    assert parts.items() <= {path: path.stat().st_mtime_ns for path in out.rglob("images/*.parquet")}.items()
    built("emotion_edits", pictures, whole, server)
    assert load_split(out, "emotion_edits").to_list() == load_split(whole, "emotion_edits").to_list()
