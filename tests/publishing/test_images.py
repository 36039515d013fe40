from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from widespectrum.errors import InputError
from widespectrum.publishing.image_shards import open_shards
from widespectrum.publishing.images import IMAGE_FEATURES, Duplicate, Packing, Rejected, pack_images

FEATURES = {
    "photo_id": datasets.Value("int64"),
    "style": datasets.ClassLabel(names=["soft", "hard"]),
    "tags": datasets.List(datasets.Value("string")),
}


def photograph(seed, mode="RGB", size=(48, 32)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def fill(root, count):
    """JPEG files 0.jpg, 1.jpg and so on."""
    root.mkdir(exist_ok=True)
    for number in range(count):
        photograph(number).save(root / f"{number}.jpg")
    return root


def rows_of(root, count, suffix="jpg"):
    for number in range(count):
        row = {"photo_id": number, "style": ["soft", "hard"][number % 2], "tags": ["x"] * (number % 3)}
        yield row, root / f"{number}.{suffix}"


def pack(items, out, root, split="train", config="photos", features=FEATURES, **options):
    packing = Packing(key="photo_id", root=root, **options)
    return pack_images(items, out, config=config, split=split, features=features, packing=packing)


def bytes_of(out):
    """Everything that would be published, by path."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and ".packing" not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "images", 30)


def three_files(root):
    """So that a shard takes three files and no fourth."""
    return 3 * max(path.stat().st_size for path in root.iterdir())


def load(out, tmp_path, **options):
    files = {"train": str(out / "photos" / "train-*.parquet")}
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"), **options)["train"]


def test_files_go_in_byte_for_byte_and_load_as_images(root, tmp_path):
    (root / "sub").mkdir()
    kinds = {
        "cmyk.jpg": (photograph(50, "CMYK"), {}),
        "sub/deep.png": (Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 99), {}),
        "palette.png": (photograph(51, "P"), {"transparency": 1}),
        "moving.webp": (photograph(52), {"save_all": True, "append_images": [photograph(53)]}),
        "pages.tif": (photograph(54), {"save_all": True, "append_images": [photograph(55)]}),
        "plain.bmp": (photograph(56), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(root / name, **options)
    items = list(rows_of(root, 30))
    items += [({"photo_id": 100 + i, "style": 0, "tags": []}, root / name) for i, name in enumerate(kinds)]
    packed = pack(items, tmp_path / "out", root)

    assert (packed.rows, packed.kept, packed.rejected, packed.duplicates) == (36, 0, (), ())
    assert [path.name for path in packed.shards] == ["train-00000-of-00001.parquet"]
    loaded = load(tmp_path / "out", tmp_path)
    assert loaded.features == datasets.Features({**FEATURES, **IMAGE_FEATURES})
    stored = loaded.cast_column("image", datasets.Image(decode=False))
    for (row, path), found, raw in zip(items, loaded, stored, strict=True):
        content = path.read_bytes()
        assert raw["image"] == {"bytes": content, "path": path.relative_to(root).as_posix()}
        assert found["sha256"] == hashlib.sha256(content).hexdigest()
        assert found["image"].size == (found["width"], found["height"])
        assert found["photo_id"] == row["photo_id"]
        assert found["tags"] == row["tags"]
        assert found["style"] == (row["style"] if row["photo_id"] >= 100 else row["photo_id"] % 2)
    streamed = load(tmp_path / "out", tmp_path, streaming=True)
    assert [row["photo_id"] for row in streamed] == [row["photo_id"] for row, _ in items]
    assert next(iter(streamed))["image"].size == (48, 32)
    assert not list((tmp_path / "out").rglob("*.csv"))


def test_shards_and_row_groups_are_bounded(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for number in range(230):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / f"{number}.png")
    packed = pack(rows_of(root, 230, "png"), tmp_path / "one", root)
    metadata = pq.read_metadata(packed.shards[0])
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [100, 100, 30]
    limit = 40 * (root / "0.png").stat().st_size
    packed = pack(rows_of(root, 230, "png"), tmp_path / "many", root, shard_size=limit)
    assert [path.name for path in packed.shards] == [
        f"train-{i:05d}-of-{len(packed.shards):05d}.parquet" for i in range(len(packed.shards))
    ]
    sizes = [pq.read_table(path, columns=["photo_id"])["photo_id"].to_pylist() for path in packed.shards]
    assert [key for keys in sizes for key in keys] == list(range(230))
    for path, keys in zip(packed.shards, sizes, strict=True):
        assert sum((root / f"{key}.png").stat().st_size for key in keys) <= limit
        assert path.stat().st_size < 60 * limit
    assert load(tmp_path / "many", tmp_path)["photo_id"] == list(range(230))


def bomb():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_what_is_left_out_is_listed_with_its_reason(root, tmp_path):
    whole = (root / "1.jpg").read_bytes()
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "text": b"not an image" * 9,
        "empty": b"",
        "bomb": bomb(),
        "same": (root / "4.jpg").read_bytes(),
    }.items():
        (root / f"{name}.jpg").write_bytes(content)
    (tmp_path / "secret.jpg").write_bytes(whole)
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "folder.jpg").mkdir()
    names = ["cut", "text", "empty", "bomb", "same", "link", "gone", "folder", "none", "../secret"]
    items = [*rows_of(root, 10), (next(rows_of(root, 1))[0], root / "5.jpg")]
    row = {"style": "soft", "tags": []}
    items += [({**row, "photo_id": 100 + i}, root / f"{name}.jpg") for i, name in enumerate(names)]
    packed = pack(iter(items), tmp_path / "out", root)

    reasons = {rejected.path: rejected.reason for rejected in packed.rejected}
    assert reasons == {
        "5.jpg": "an earlier row has the same photo_id",
        "cut.jpg": "is cut off: the end of the JPEG picture is missing",
        "text.jpg": "is not an image that can be read; expected one of JPEG, PNG, BMP, TIFF, WEBP",
        "empty.jpg": "is empty",
        "bomb.jpg": "is too large: at most 89,478,485 pixels are taken",
        "link.jpg": "lies outside the root folder; copy it into the folder",
        "gone.jpg": "is missing",
        "folder.jpg": "is not a file",
        "none.jpg": "is missing",
        "../secret.jpg": "lies outside the root folder; copy it into the folder",
    }
    assert Rejected("0", "5.jpg", "an earlier row has the same photo_id") in packed.rejected
    assert packed.duplicates == (Duplicate("104", "same.jpg", "4"),)
    assert packed.rows == 11
    assert load(tmp_path / "out", tmp_path)["photo_id"] == [*range(10), 104]
    with (tmp_path / "out" / "photos" / "rejected.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [Rejected(*(line[name] for name in ("key", "path", "reason"))) for line in lines] == list(packed.rejected)
    assert {line["split"] for line in lines} == {"train"}
    duplicates = (tmp_path / "out" / "photos" / "duplicates.csv").read_text()
    assert duplicates == "split,key,path,same_as\ntrain,104,same.jpg,4\n"


def test_each_split_keeps_its_own_files_and_lists(root, tmp_path):
    out = tmp_path / "out"
    (root / "3.jpg").write_bytes(b"no")
    pack(rows_of(root, 6), out, root, split="train")
    pack(rows_of(root, 5), out, root, split="train_more")
    listed = (out / "photos" / "rejected.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in listed[1:]] == [[split, "3", "3.jpg"] for split in ("train", "train_more")]
    photograph(3).save(root / "3.jpg")
    assert pack(rows_of(root, 6), out, root, split="train").rejected == ()
    assert [line[:10] for line in (out / "photos" / "rejected.csv").read_text().splitlines()[1:]] == ["train_more"]
    assert pack(rows_of(root, 5), out, root, split="train_more").rejected == ()
    assert sorted(bytes_of(out)) == [f"photos/{split}-00000-of-00001.parquet" for split in ("train", "train_more")]


def test_a_rerun_makes_only_what_changed(root, tmp_path):
    out, options = tmp_path / "out", {"shard_size": three_files(root)}
    (root / "2.jpg").write_bytes(b"no")
    first = pack(rows_of(root, 30), out, root, **options)
    count, before = len(first.shards), bytes_of(out)
    assert count >= 9

    again = pack(rows_of(root, 30), out, root, **options)
    assert (again.kept, again.rejected, again.rows) == (count, first.rejected, 29)
    assert bytes_of(out) == before

    photograph(99).save(root / "29.jpg")
    changed = pack(rows_of(root, 30), out, root, **options)
    assert changed.kept >= count - 2
    assert load(out, tmp_path)[-1]["sha256"] == hashlib.sha256((root / "29.jpg").read_bytes()).hexdigest()

    items = [({**row, "tags": ["new"]} if row["photo_id"] == 0 else row, path) for row, path in rows_of(root, 30)]
    relabeled = pack(items, out, root, **options)
    assert relabeled.kept == len(relabeled.shards) - 1
    assert load(out, tmp_path)[0]["tags"] == ["new"]

    fewer = pack(rows_of(root, 10), out, root, **options)
    assert 0 < fewer.kept < len(fewer.shards) < count
    assert sorted(path.name for path in (out / "photos").glob("*.parquet")) == [path.name for path in fewer.shards]
    assert not list((out / ".packing").rglob("*.parquet"))


@pytest.mark.parametrize("harm", ["remove", "cut", "swap", "journal"])
def test_a_shard_that_was_harmed_is_made_anew(root, tmp_path, harm):
    out, options = tmp_path / "out", {"shard_size": three_files(root)}
    first = pack(rows_of(root, 30), out, root, **options)
    before, victim = bytes_of(out), first.shards[1]
    if harm == "remove":
        victim.unlink()
    elif harm == "cut":
        victim.write_bytes(victim.read_bytes()[:-9])
    elif harm == "swap":
        victim.write_bytes(first.shards[2].read_bytes())
    else:
        (out / ".packing" / "photos" / "train.json").write_text("[{")
    again = pack(rows_of(root, 30), out, root, **options)
    assert again.kept == (0 if harm == "journal" else len(first.shards) - 1)
    assert bytes_of(out) == before


def test_a_file_that_could_not_be_read_is_tried_again(root, tmp_path):
    path, out = root / "3.jpg", tmp_path / "out"
    content, times = path.read_bytes(), path.stat()

    def changing():
        for number, item in enumerate(rows_of(root, 6)):
            yield item
            if number == 3:
                path.write_bytes(content[:-10])

    packed = pack(changing(), out, root)
    assert [(each.key, each.reason) for each in packed.rejected] == [("3", "changed while it was read; run again")]
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = pack(rows_of(root, 6), out, root)
    assert (again.rows, again.rejected, again.kept) == (6, (), 0)


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_images import pack, rows_of

def slowly():
    for item in rows_of(Path({root!r}), 30):
        time.sleep(0.03)
        yield item

if __name__ == "__main__":
    pack(slowly(), Path({out!r}), Path({root!r}), shard_size={shard_size})
"""


def finished(out):
    try:
        return len(json.loads((out / ".packing" / "photos" / "train.json").read_text()))
    except (OSError, ValueError):
        return 0


def test_a_killed_process_loses_no_finished_shard(root, tmp_path):
    out, size = tmp_path / "out", three_files(root)
    tests = str(Path(__file__).parent)
    script = SLOW.format(tests=tests, root=str(root), out=str(out), shard_size=size)
    (root / "17.jpg").write_bytes(b"no")
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while finished(out) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() - started < 60
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not list(out.glob("photos/*.parquet"))
    (out / ".packing" / "photos" / ".tmp-train-x.parquet").write_bytes(b"half")

    packed = pack(rows_of(root, 30), out, root, shard_size=size)
    assert 3 <= packed.kept < len(packed.shards)
    whole = pack(rows_of(root, 30), tmp_path / "whole", root, shard_size=size)
    assert whole.kept == 0
    assert packed.rejected == whole.rejected
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    assert sorted(path.name for path in (out / ".packing" / "photos").iterdir()) == ["train.json", "train.lock"]


def test_a_kill_while_the_shards_are_renamed_loses_none(root, tmp_path):
    out, size = tmp_path / "out", three_files(root)
    packed = pack(rows_of(root, 30), out, root, shard_size=size)
    before, work = bytes_of(out), out / ".packing" / "photos"
    by_name = {shard["name"]: shard["fingerprint"] for shard in json.loads((work / "train.json").read_text())}
    for path in packed.shards[::2]:
        path.rename(work / f"train-{by_name[path.name]}.parquet")
    assert pack(rows_of(root, 30), out, root, shard_size=size).kept == len(packed.shards)
    assert bytes_of(out) == before


def test_two_processes_do_not_pack_the_same_split(root, tmp_path):
    with (
        open_shards(tmp_path / "out", "photos", "train", "photo_id"),
        pytest.raises(InputError, match="photos is being packed by another process: wait for it to end"),
    ):
        pack(rows_of(root, 3), tmp_path / "out", root)
    assert pack(rows_of(root, 3), tmp_path / "out", root).rows == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": {**FEATURES, "sha256": datasets.Value("int64")}}, "the feature 'sha256' must be Value"),
        (
            {"features": {"style": FEATURES["style"]}},
            "the key 'photo_id' must be a column of the rows; expected one of",
        ),
        ({"split": "../train"}, "split must be letters, digits and underscores; got '../train'"),
        ({"config": "a/b"}, "config must be letters"),
        ({"shard_size": 0}, "shard_size and workers must be 1 or more; got 0 and 2"),
        ({"root": "none"}, "none is not a folder"),
        ({"items": [({"photo_id": 1}, "0.jpg")]}, "expected rows with the columns photo_id, style, tags; got photo_id"),
        ({"items": [({"photo_id": None, "style": 0, "tags": []}, "0.jpg")]}, "expected a photo_id in every row; got"),
        (
            {"items": [({"photo_id": "x", "style": 0, "tags": []}, "0.jpg")]},
            "rows x to x: a value does not fit the features",
        ),
        ({"items": [({"photo_id": 1, "style": "round", "tags": []}, "0.jpg")]}, "rows 1 to 1: .*round"),
        ({"items": []}, "no image can be packed .there are no rows."),
        ({"items": [({"photo_id": 1, "style": 0, "tags": []}, "z.jpg")]}, "no image can be packed .z.jpg is missing.;"),
    ],
)
def test_what_the_caller_got_wrong_is_said(root, tmp_path, options, message):
    options = dict(options)
    folder = tmp_path / options.pop("root", "images")
    items = [(row, root / name) for row, name in options.pop("items", [])]
    with pytest.raises(InputError, match=message):
        pack(items, tmp_path / "out", folder, **options)


def test_a_place_that_cannot_be_written_is_said(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be written to .*: choose another folder"):
        pack(rows_of(root, 3), tmp_path / "file", root)


def test_columns_keep_the_order_of_the_features(root, tmp_path):
    features = {"image": IMAGE_FEATURES["image"], "width": IMAGE_FEATURES["width"], **FEATURES}
    packed = pack(rows_of(root, 3), tmp_path / "out", root, features=features)
    names = ["image", "width", "photo_id", "style", "tags", "sha256", "height"]
    assert pq.read_schema(packed.shards[0]).names == names
    with Image.open(io.BytesIO(load(tmp_path / "out", tmp_path).data["image"][0].as_py()["bytes"])) as image:
        assert image.size == (48, 32)
