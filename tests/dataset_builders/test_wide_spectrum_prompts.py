"""The dataset from its builder to those who load it: `datasets`, mlcroissant, and the check before publishing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard
from scipy import stats

from tests.chat_server import serving
from tests.croissant_reader import parquet_rows, read
from widespectrum import controlled
from widespectrum.errors import InputError, UnknownNameError
from widespectrum.prompts import load_prompt_set, read_prompts
from widespectrum.prompts.private import SECRET, commitment
from widespectrum.published import load_module, published_path
from widespectrum.publishing import read_provenance
from widespectrum.publishing.check import problems
from widespectrum.types import DIMENSIONS

SIZE = 128
SPLITS = {
    "authored": ("test", "lite"),
    "controlled": ("test",),
    "critical": ("test",),
    "emotion": ("test", "reverse"),
    "emotion_probes": ("test",),
    "photographs": ("test",),
}

pytestmark = [
    # `datasets` leaves the card open, which Python reports as a ResourceWarning.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # of mlcroissant itself and of the libraries that it calls
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    return load_module(published_path("dataset_builders", "wide_spectrum_prompts") / "build.py")


@pytest.fixture(scope="module")
def made(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, datasets.DatasetDict]:
    out = tmp_path_factory.mktemp("hub") / "wide_spectrum_prompts"
    return out, builder.build(out, size=SIZE)


@pytest.fixture(scope="module")
def built(made: tuple[Path, datasets.DatasetDict]) -> Path:
    return made[0]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A file of COCO's form with captions of our own, two of which cannot be used."""
    texts = [f"A {noun} {verb} near a {place}." for noun in ("dog", "girl", "horse") for verb in ("waits", "sleeps")
             for place in ("bridge", "market", "lake")]  # fmt: skip
    entries = [{"id": n, "image_id": n // 2, "caption": text} for n, text in enumerate([*texts, "Dog.", texts[0]])]
    path = tmp_path / "captions_mine.json"
    path.write_text(json.dumps({"annotations": entries}), encoding="utf-8")
    return path


def parquet(out: Path, config: str, split: str = "test") -> list[dict]:
    return pq.read_table(out / config / f"{split}-00000-of-00001.parquet").to_pylist()


def card(out: Path) -> str:
    return (out / "README.md").read_text(encoding="utf-8")


def undecoded(table: datasets.Dataset) -> list[dict]:
    return table.with_format("arrow")[:].to_pylist()


def test_the_files(builder: ModuleType, made: tuple[Path, datasets.DatasetDict]) -> None:
    out, tables = made
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    parts = [f"{config}/{split}-00000-of-00001.parquet" for config, splits in SPLITS.items() for split in splits]
    assert files == sorted(["README.md", "croissant.json", *(f"{config}/provenance.json" for config in SPLITS), *parts])
    for config, splits in SPLITS.items():
        for split in splits:
            schema = pq.read_schema(out / config / f"{split}-00000-of-00001.parquet")
            assert schema.names == list(builder.FEATURES[config])
            assert datasets.Features.from_arrow_schema(schema) == builder.FEATURES[config]
            assert undecoded(tables[f"{config}.{split}"]) == parquet(out, config, split)
    assert problems(out) == []


@pytest.mark.parametrize(("config", "split"), [(config, split) for config in SPLITS for split in SPLITS[config]])
def test_it_loads_without_this_package(
    builder: ModuleType, built: Path, tmp_path: Path, config: str, split: str
) -> None:
    rows = parquet(built, config, split)
    cache = str(tmp_path)
    whole = datasets.load_dataset(str(built), config, cache_dir=cache)
    assert tuple(whole) == SPLITS[config]
    assert whole[split].features == builder.FEATURES[config]
    assert undecoded(whole[split]) == rows
    half = datasets.load_dataset(str(built), config, split=f"{split}[5:9]+{split}[-1:]", cache_dir=cache)
    assert undecoded(half) == [*rows[5:9], rows[-1]]
    streamed = datasets.load_dataset(str(built), config, split=split, streaming=True)
    if config == "controlled":
        streamed = streamed.cast_column("image", datasets.Image(decode=False))
    assert list(streamed) == rows


def test_dataset_info_is_that_of_the_files(builder: ModuleType, built: Path) -> None:
    data = DatasetCard(card(built)).data
    assert [entry["config_name"] for entry in data["configs"]] == list(SPLITS)
    assert [entry["config_name"] for entry in data["configs"] if entry.get("default")] == ["authored"]
    infos = DatasetInfosDict.from_dataset_card_data(data)
    assert {config: info.features for config, info in infos.items()} == {
        config: builder.FEATURES[config] for config in SPLITS
    }
    for config, info in infos.items():
        rows = {split: len(parquet(built, config, split)) for split in SPLITS[config]}
        assert {split: part.num_examples for split, part in info.splits.items()} == rows


def test_croissant_is_valid_and_gives_the_rows(built: Path) -> None:
    issues, _, records = read(built)
    assert issues == []
    assert records == parquet_rows(built)


def test_prompt_sets_and_configs_are_the_same_prompts(built: Path) -> None:
    for name, split in (("authored", "test"), ("authored-lite", "lite"), ("photographs", "test")):
        path = built / name.partition("-")[0] / f"{split}-00000-of-00001.parquet"
        assert read_prompts(path) == load_prompt_set(name).prompts
    assert parquet(built, "authored", "lite") == parquet(built, "authored")[: len(parquet(built, "authored", "lite"))]


def test_effects_stand_in_their_prompts(built: Path) -> None:
    for row in parquet(built, "authored") + parquet(built, "photographs"):
        assert len(row["effects"]) == len(row["dimensions"])
        assert all(effect in row["wide_spectrum_prompt"] for effect in row["effects"])
    for row in parquet(built, "authored"):
        assert row["words"] == len(row["wide_spectrum_prompt"].split()) < 70


def test_controlled_holds_the_images_and_their_terms(built: Path) -> None:
    rows = parquet(built, "controlled")
    for row in rows[::13]:
        assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["image_id"]
    assert len(rows) == 6 * 13 * 5
    assert rows[:70] == list(islice(controlled.controlled_rows(size=SIZE), 70))
    terms = read_provenance(built / "controlled")
    assert terms.image_rights.keys() == {row["photograph"] for row in rows}
    assert terms.options == {
        "seed": 0,
        "size": SIZE,
        "left out: motorcycle": controlled.left_out()["motorcycle"],
    }
    assert all(not read_provenance(built / config).image_rights for config in SPLITS if config != "controlled")


def test_the_card_counts_what_is_there(built: Path) -> None:
    text = card(built)
    assert "$" not in text
    assert "<!--" not in text
    rows = parquet(built, "authored")
    assert f"\n{len(rows)} pairs written for this dataset" in text
    assert f"holds the first {len(parquet(built, 'authored', 'lite'))} pairs." in text
    uses = Counter((name, len(row["dimensions"])) for row in rows for name in row["dimensions"])
    for name in DIMENSIONS:
        counts = [uses[name, size] for size in (2, 3, 4)]
        assert f"| {name} | {' | '.join(map(str, counts))} | {sum(counts)} |" in text
    test = stats.chisquare([sum(uses[name, size] for size in (2, 3, 4)) for name in DIMENSIONS])
    assert f"| equal shares: dimensions | {test.statistic:.2f} | 10 | {test.pvalue:.3f} |" in text
    subjects = sorted({row["subset"] for row in rows})
    table = np.array([[sum(row["subset"] == subject and name in row["dimensions"] for row in rows)
                       for subject in subjects] for name in DIMENSIONS])  # fmt: skip
    crossed = stats.chi2_contingency(table, correction=False)
    line = f"| independence: dimension and subset | {crossed.statistic:.2f} | {crossed.dof} | {crossed.pvalue:.3f} |"
    assert line in text
    assert "91 pairs about 7 photographs" in text
    assert "| detail refinement | pixelation | 5 |" in text
    assert "\n390 images. The truth" in text
    assert "| clarity: motion blur | 6 | 6 | 6 | 6 | 6 | 30 |" in text
    assert "\n30 templates, each with six emotions" in text
    assert "| censorship | 20 |" in text
    words = sorted(row["words"] for row in rows)
    assert f"| words | {words[0]} | {np.median(words):g} | {words[-1]} | – | – | – |" in text
    assert "## The config `coco`" not in text


def test_equal_builds_are_equal_files(builder: ModuleType, tmp_path: Path) -> None:
    configs = [config for config in SPLITS if config != "controlled"]
    found = []
    for name in ("one", "other"):
        builder.build(tmp_path / name, config=configs)
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        found.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert found[0] == found[1]


def test_one_config_at_a_time(builder: ModuleType, tmp_path: Path) -> None:
    assert list(builder.build(tmp_path, config=["emotion"])) == ["test", "reverse"]
    assert "\n- config_name: emotion\n  default: true\n" in card(tmp_path)
    before = (tmp_path / "emotion" / "test-00000-of-00001.parquet").read_bytes()
    both = builder.build(tmp_path, config=["critical", "authored", "critical"])
    assert list(both) == ["critical.test", "authored.test", "authored.lite"]
    assert (tmp_path / "emotion" / "test-00000-of-00001.parquet").read_bytes() == before
    assert [line for line in card(tmp_path).splitlines() if line.startswith("## The config")] == [
        f"## The config `{config}`" for config in ("authored", "emotion", "critical")
    ]
    assert "- config_name: authored\n  default: true\n" in card(tmp_path)
    assert problems(tmp_path) == []


def test_an_unknown_config_is_named_before_anything_is_written(builder: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown config 'photograph': did you mean photographs"):
        builder.build(tmp_path / "out", config=["emotion", "photograph"])
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_the_user_adds_its_column(builder: ModuleType, tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", ""]), encoding="utf-8")
    out = tmp_path / "out"
    made = builder.build(out, config=["authored"], tokenizer=[f"mine={vocabulary}", f"bert={vocabulary}"])
    assert made["test"].column_names == [*builder.FEATURES["authored"], "tokens_mine"]
    for row in parquet(out, "authored"):
        # words that are not in the vocabulary are one token each, and so are marks
        assert row["tokens_mine"] == row["tokens_bert"] >= row["words"] + 2
        assert bool(row["past_bert_35"]) <= (row["tokens_bert"] > 35)
        assert set(row["past_bert_35"]) <= set(row["dimensions"])
        assert (row["tokens_clip"], row["past_clip_77"]) == (None, None) or "clip" not in row["tokens_note"]
    assert any(row["past_bert_35"] for row in parquet(out, "authored"))
    lost = [row["past_bert_35"] for row in parquet(out, "authored")]
    counts = sorted(row["tokens_bert"] for row in parquet(out, "authored"))
    assert (
        f"| tokens_bert | {counts[0]} | {np.median(counts):g} | {counts[-1]} | 35 | "
        f"{sum(map(bool, lost))} | {sum(map(len, lost))} |"
    ) in card(out)
    assert read_provenance(out / "authored").options["tokens of mine"].startswith("vocab.txt sha256:")
    assert problems(out) == []


def test_coco_lists_what_cannot_be_used(builder: ModuleType, tmp_path: Path, captions: Path) -> None:
    out = tmp_path / "out"
    made = builder.build(out, config=["coco"], captions=captions, seed=3)
    assert {split: table.num_rows for split, table in made.items()} == {"test": 18, "rejected": 2}
    assert made["test"].column_names == list(builder.FEATURES["coco"])
    rejected = {row["original_prompt"]: row["problems"] for row in parquet(out, "coco", "rejected")}
    assert rejected == {
        "Dog.": ["caption: 1 words; expected 3 to 60"],
        "A dog waits near a bridge.": ["caption: repeats another caption"],
    }
    assert len(read_prompts(out / "coco" / "test-00000-of-00001.parquet")) == 36
    text = card(out)
    assert "\n18 pairs made from captions of COCO 2017" in text
    assert "with its `problems`: 2 captions." in text
    assert "| caption: repeats another caption | 1 |" in text
    terms = read_provenance(out / "coco")
    assert terms.sources[0].name == "captions_mine.json"
    assert terms.sources[0].sha256 == hashlib.sha256(captions.read_bytes()).hexdigest()
    assert (terms.options["rewriter"], terms.options["seed"]) == ("template", 3)
    assert problems(out) == []
    few = builder.build(out, config=["coco"], captions=captions, pairs=1)
    assert {split: table.num_rows for split, table in few.items()} == {"test": 1, "rejected": 2}
    assert "| equal shares: k | 2.00 | 2 | 0.368 |" in card(out)


def test_a_private_split_is_refused_by_the_check_and_tells_no_secret(
    builder: ModuleType, tmp_path: Path, captions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "correct horse battery staple, and more"
    monkeypatch.setenv(SECRET, secret)
    made = builder.build(tmp_path / "out", config=["private"], captions=captions, pairs=4, rotation="2026-12")
    assert made["test"].num_rows == 4
    assert [problem.code for problem in problems(tmp_path / "out")] == ["private"]
    public = json.loads((tmp_path / "out" / "private" / "commitment.json").read_text(encoding="utf-8"))
    rows = parquet(tmp_path / "out", "private")
    assert public == {"rotation": "2026-12", "pairs": 4, "sha256": commitment(rows, "2026-12")}
    assert read_provenance(tmp_path / "out" / "private").options == {"rotation": "2026-12"}
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": ["coco"]}, "this config is made from captions: give COCO's captions_*.json, --captions FILE"),
        ({"config": ["coco"], "captions": Path("nowhere.json")}, "no caption file at "),
        ({"config": ["private"], "captions": True, "rotation": "2026-12"}, "the private split needs a secret of at"),
        ({"config": ["coco"], "captions": True, "pairs": 100}, "100 pairs were asked for, but only 18 captions can be"),
        (
            {"config": ["coco"], "captions": True, "rewriter": "gpt"},
            "expected the rewriter 'template' or openai:<model>",
        ),
        ({"config": ["controlled"], "size": 32}, "the size must be at least 128 pixels"),
        ({"config": ["controlled"], "photos": Path("nowhere")}, "nowhere"),
    ],
)
def test_what_is_missing_is_said(
    builder: ModuleType, tmp_path: Path, captions: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    given = {**options, **({"captions": captions} if options.get("captions") is True else {})}
    with pytest.raises(InputError) as error:
        builder.build(tmp_path / "out", **given)
    assert message in str(error.value)
    assert not (tmp_path / "out" / "README.md").exists()


def test_prompts_of_which_none_passes_are_listed(builder: ModuleType, tmp_path: Path, captions: Path) -> None:
    bad = {"prompt": "It is all a blur.", "effects": [], "negative_prompt": "sharp"}
    listed = tmp_path / "out" / ".work" / "coco-rejected.jsonl"
    with serving([bad]) as server, pytest.raises(InputError) as error:
        builder.build(tmp_path / "out", config=["coco"], captions=captions, pairs=3, rewriter=server.endpoint)
    assert str(error.value).endswith(f"all are listed in {listed}")
    rows = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    assert [row["rewriter_reply"] for row in rows[:3]] == [json.dumps(bad)] * 3
    assert all(row["problems"] for row in rows)


def test_photographs_of_the_user_need_a_statement_of_their_rights(builder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (96, SIZE, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "photos" / "wall.png")
    for rights, expected in (("", ["rights-unclear"]), ("taken by me, CC0", [])):
        options = {"config": ["controlled"], "photos": tmp_path / "photos", "size": SIZE, "rights": rights}
        made = builder.build(tmp_path / "out", **options)
        assert made["test"].num_rows == 65
        assert [problem.code for problem in problems(tmp_path / "out")] == expected
    assert read_provenance(tmp_path / "out" / "controlled").image_rights == {"wall.png": "clear: taken by me, CC0"}
