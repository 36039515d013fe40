import dataclasses
import io
import types
import typing

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from widespectrum import store
from widespectrum.errors import InputError, RunFolderError
from widespectrum.images import encode
from widespectrum.types import AbstentionRecord, Call, ImageRecord, MetricResult, Prompt, Score, Verdict

RECORDS = {
    "prompts": Prompt,
    "images": ImageRecord,
    "calls": Call,
    "scores": Score,
    "verdicts": Verdict,
    "abstentions": AbstentionRecord,
    "results": MetricResult,
}


def score(number, **changes):
    values = {
        "pair_id": f"pair {number}",
        "generator": "g",
        "image_seed": 0,
        "image_role": "original",
        "prompt_role": "wide_spectrum",
        "image_id": f"i{number}",
        "prompt_id": f"p{number}",
        "reward_model": "m",
        "value": number / 7,
        "truncated": number % 2 == 1,
    }
    return Score(**values | changes)


def picture(number):
    image = PIL.Image.new("RGB", (3, 2), (number, 255 - number, 7))
    image.putpixel((1, 1), (number, 0, 0))
    return image


def image_rows(numbers):
    """Image records with their payload."""
    records, payload = [], []
    for number in numbers:
        image_id, content = encode(picture(number))
        path = f"{number}.png"
        record = ImageRecord(
            image_id=image_id,
            prompt_id=f"p{number}",
            generator="g",
            seed=number,
            status="ok",
            detail="",
            width=3,
            height=2,
            path=path,
            noise_seed=2**63 - number,
        )
        records.append(record)
        payload.append({"bytes": content, "path": path})
    return records, payload


REFUSAL = ImageRecord(
    image_id="",
    prompt_id="p",
    generator="g",
    seed=0,
    status="refused",
    detail="will not",
    width=0,
    height=0,
    path="",
)

ROWS = {
    "prompts": [
        Prompt(prompt_id="", text="a cup", pair_id="1", role="original"),
        Prompt(
            prompt_id="",
            text='a "café" 🌧',
            pair_id="1",
            role="wide_spectrum",
            dimensions=("clarity", "emotion"),
            subset="s",
            negative_prompt="sharp, cheerful",
        ),
    ],
    "images": [*image_rows([4])[0], REFUSAL],
    "calls": [
        Call(
            call_id=f"c{attempt}",
            prompt_id="p",
            generator="g",
            seed=0,
            attempt=attempt,
            status=status,
            code=code,
            request_id="r",
            model="m",
            cost=cost,
            seconds=0.25,
            detail="will not",
            time="2026-01-02T03:04:05+00:00",
        )
        for attempt, (status, code, cost) in enumerate([("failed", None, None), ("refused", 200, 0.04)])
    ],
    "scores": [score(1), score(2, value=-0.1 - 0.2)],
    "verdicts": [
        Verdict(
            prompt_id="p",
            image_id="a",
            rival_id=rival,
            dimension="overall",
            judge="j",
            outcome=outcome,
            order="both",
            rationale="why",
        )
        for rival, outcome in (("b", 0.5), ("", 1 / 3))
    ],
    "abstentions": [
        AbstentionRecord(
            prompt_id="p", image_id="a", rival_id="b", dimension="overall", judge="j", reason="cannot tell"
        )
    ],
    "results": [
        MetricResult(
            metric="m",
            model="x",
            value=0.5,
            ci_low=0.1,
            ci_high=0.7,
            level=0.95,
            n=3,
            subset=subset,
            tie_group=group,
        )
        for subset, group in (("all", None), ("verified", 2))
    ],
}


def arrow_types(annotation):
    """The Arrow types that hold an annotated field."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = [part for part in typing.get_args(annotation) if part is not types.NoneType]
    if typing.get_origin(annotation) is typing.Literal:
        annotation = str
    return {
        str: (pa.string(),),
        int: (pa.int64(), pa.int32()),
        float: (pa.float64(),),
        bool: (pa.bool_(),),
        tuple[str, ...]: (pa.list_(pa.string()),),
    }[annotation]


@pytest.mark.parametrize("table", store.SCHEMAS)
def test_the_columns_are_the_fields_of_the_record(table):
    schema, record = store.SCHEMAS[table], RECORDS[table]
    fields = [field.name for field in dataclasses.fields(record)]
    assert schema.names == fields + (["image"] if table == "images" else [])
    for name, annotation in typing.get_type_hints(record).items():
        assert schema.field(name).type in arrow_types(annotation), name


def test_every_table_has_a_key_of_its_own_columns():
    assert set(store.KEYS) == set(store.SCHEMAS) == set(RECORDS)
    for table, key in store.KEYS.items():
        assert set(key) <= set(store.SCHEMAS[table].names)


@pytest.mark.parametrize("table", store.SCHEMAS)
def test_rows_come_back_as_they_were(table, tmp_path):
    payload = [*image_rows([4])[1], None] if table == "images" else None
    path = store.append(tmp_path, table, ROWS[table], payload)
    assert path.parent == tmp_path / table
    rows = store.read(tmp_path, table).to_pylist()
    if payload:
        assert [row.pop("image") for row in rows] == payload
    for row in rows:
        row |= {name: tuple(row[name]) for name in ("dimensions", "effects", "past_window") if name in row}
    assert [RECORDS[table](**row) for row in rows] == ROWS[table]
    assert store.keys(tmp_path, table) == {
        tuple(getattr(row, name) for name in store.KEYS[table]) for row in ROWS[table]
    }


def test_a_table_that_is_not_there_is_empty(tmp_path):
    for table, schema in store.SCHEMAS.items():
        assert store.read(tmp_path / "nowhere", table).schema.equals(schema)
        assert store.read(tmp_path / "nowhere", table).num_rows == 0
    assert store.keys(tmp_path, "scores") == set()
    assert not list(tmp_path.iterdir())


def test_an_arrow_table_is_taken_too_and_columns_can_be_chosen(tmp_path):
    store.append(tmp_path, "scores", [score(1)])
    store.append(tmp_path / "other", "scores", store.read(tmp_path, "scores"))
    chosen = store.read(tmp_path / "other", "scores", ("value", "pair_id"))
    assert chosen.to_pydict() == {"value": [1 / 7], "pair_id": ["pair 1"]}


def test_unknown_tables_are_refused(tmp_path):
    for call in (store.parts, store.read):
        with pytest.raises(InputError, match="unknown table 'ratings'; expected one of prompts, images, calls, scores"):
            call(tmp_path, "ratings")


def test_a_part_is_added_and_never_overwritten(tmp_path):
    first = store.append(tmp_path, "scores", [score(1)])
    before = first.read_bytes()
    for _ in range(11):
        store.append(tmp_path, "scores", [score(1)])
    store.append(tmp_path, "scores", [score(2)])
    assert first.read_bytes() == before
    assert len(store.parts(tmp_path, "scores")) == 13
    pairs = store.read(tmp_path, "scores")["pair_id"].to_pylist()
    assert pairs == ["pair 1"] * 12 + ["pair 2"]


def test_nothing_to_add_writes_nothing(tmp_path):
    assert store.append(tmp_path, "scores", []) is None
    assert not list(tmp_path.iterdir())


def test_half_written_parts_are_not_seen_and_cleaned_away(tmp_path):
    part = store.append(tmp_path, "scores", [score(1)])
    half = part.with_name(".tmp-part-000001-abc.parquet")
    half.write_bytes(part.read_bytes()[:100])
    manifest = tmp_path / ".tmp-manifest.json"
    manifest.write_text("{")
    kept = tmp_path / "scores" / "notes.tmp"
    kept.write_text("mine")
    assert store.parts(tmp_path, "scores") == [part]
    assert store.read(tmp_path, "scores").num_rows == 1
    store.clean(tmp_path)
    assert sorted(tmp_path.rglob("*")) == sorted([part.parent, part, kept])


def test_an_interrupted_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    store.write_file(path, b"old")

    def stop(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        store.write_file(path, b"new and longer")
    with pytest.raises(KeyboardInterrupt):
        store.append(tmp_path, "scores", [score(1)])
    assert path.read_bytes() == b"old"
    assert store.parts(tmp_path, "scores") == []


def rewritten(part, change):
    """The bytes of the part after `change` to its table."""
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(part)), sink)
    return sink.getvalue()


def as_text(table):
    values = pa.array([str(value) for value in table["value"].to_pylist()])
    return table.set_column(table.schema.get_field_index("value"), "value", values)


DAMAGES = {
    "empty": lambda part: b"",
    "truncated": lambda part: part.read_bytes()[:-9],
    "half": lambda part: part.read_bytes()[: part.stat().st_size // 2],
    "no parquet": lambda part: b"pair_id,value\n" * 50,
    "flipped header": lambda part: part.read_bytes()[:6] + bytes([part.read_bytes()[6] ^ 255]) + part.read_bytes()[7:],
    "column missing": lambda part: rewritten(part, lambda table: table.drop_columns("value")),
    "column renamed": lambda part: rewritten(part, lambda table: table.rename_columns({"value": "reward"})),
    "column of another type": lambda part: rewritten(part, as_text),
}


@pytest.mark.parametrize("columns", [None, ("pair_id", "value")])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_named_with_what_to_do(tmp_path, damage, columns):
    store.append(tmp_path, "scores", [score(1)])
    part = store.append(tmp_path, "scores", [score(2)])
    part.write_bytes(DAMAGES[damage](part))
    with pytest.raises(RunFolderError) as error:
        store.read(tmp_path, "scores", columns)
    assert str(error.value).startswith(str(part))
    assert str(error.value).endswith("delete it and run again; its rows are made anew")
    assert "\n" not in str(error.value)
    part.unlink()
    assert store.read(tmp_path, "scores").num_rows == 1


def test_no_flipped_bit_changes_a_value_unnoticed(tmp_path):
    part = store.append(tmp_path, "scores", [score(number) for number in range(40)])
    rows, content = store.read(tmp_path, "scores").to_pylist(), part.read_bytes()
    noticed = 0
    for position in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        part.write_bytes(damaged)
        try:
            assert store.read(tmp_path, "scores").to_pylist() == rows, position
        except RunFolderError:
            noticed += 1
    assert noticed > 100


def test_missing_is_what_is_wanted_and_not_there(tmp_path):
    store.append(tmp_path, "verdicts", ROWS["verdicts"][:1])
    done = ("p", "a", "b", "overall", "j", "both")
    wanted = [("z", *done[1:]), done, ("a", *done[1:]), ("z", *done[1:]), (*done[:5], "first"), done]
    expected = [("z", *done[1:]), ("a", *done[1:]), (*done[:5], "first")]
    assert store.missing(tmp_path, "verdicts", iter(wanted)) == expected
    assert store.missing(tmp_path, "verdicts", [done]) == []
    assert store.missing(tmp_path, "prompts", [("b", "original"), ("a", "original")]) == [
        ("b", "original"),
        ("a", "original"),
    ]


def test_replace_leaves_one_file(tmp_path):
    store.replace(tmp_path, "results", ROWS["results"])
    store.replace(tmp_path, "results", ROWS["results"][:1])
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["results.parquet"]
    assert store.read(tmp_path, "results")["subset"].to_pylist() == ["all"]


def test_a_folder_name_with_an_equals_sign_adds_no_column(tmp_path):
    run = tmp_path / "strength=2"
    store.append(run, "scores", [score(1)])
    assert store.read(run, "scores").schema.names == store.SCHEMAS["scores"].names


def test_datasets_loads_a_part_with_its_images(tmp_path):
    records, payload = image_rows([10, 20])
    part = store.append(tmp_path, "images", [*records, REFUSAL], [*payload, None])
    loaded = datasets.load_dataset(
        "parquet", data_files=str(part), split="train", cache_dir=str(tmp_path / "cache"), streaming=True
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    rows = list(loaded)
    assert rows[2]["image"] is None
    assert rows[2]["detail"] == "will not"
    for number, row in zip((10, 20), rows, strict=False):
        assert np.array_equal(np.asarray(row["image"]), np.asarray(picture(number)))


def test_datasets_loads_every_table_with_its_features(tmp_path):
    for table, rows in ROWS.items():
        if table == "images":
            continue
        part = store.append(tmp_path, table, rows)
        loaded = datasets.load_dataset("parquet", data_files=str(part), split="train", streaming=True)
        assert list(loaded.features) == store.SCHEMAS[table].names
        assert [dict(row) for row in loaded] == store.read(tmp_path, table).to_pylist()
