"""`widespectrum score TABLE`: image files and prompts in, one line per row and reward model out."""

import csv
import json

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.rewards import made_pickscore
from widespectrum.cli import app
from widespectrum.cli_score import split_names
from widespectrum.rewards import load_reward_model

ODD = ["a\rb", "a\u2028b", "a\x85b", "a\r\nb", 'say "x", y', " x ", "", "\x00"]
ROWS = [("0.png", "a cat"), ("0.png", "a dog"), ("sub/1.png", 'a cat, "blurred"\nand dark'), ("0.png", "word " * 90)]


@pytest.fixture(scope="session")
def pickscore(tmp_path_factory):
    return made_pickscore.checkpoint(tmp_path_factory.mktemp("pickscore"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for name, seed in (("0.png", 0), ("sub/1.png", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, rows=ROWS):
    columns = [{"image": image, "prompt": prompt, "note": "kept out"} for image, prompt in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in columns))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(columns), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "prompt", "note"])
            writer.writeheader()
            writer.writerows(columns)
    return path


def read(path):
    if path.suffix == ".jsonl":
        return read_lines(path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def option(pickscore, more=""):
    return f"pickscore[checkpoint={pickscore['checkpoint']},tokenizer={pickscore['tokenizer']}{more}]"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_row_is_scored_by_every_model(folder, pickscore, suffix):
    table = write(folder / f"pairs{suffix}")
    result = invoke("score", table, "--reward-model", f"{option(pickscore)},sharpness")
    assert result.exit_code == 0, result.output
    out = folder / f"pairs.scores{'.jsonl' if suffix == '.jsonl' else '.csv'}"
    assert f"8 scores added to {out}" in result.output
    rows = read(out)
    model = load_reward_model("pickscore", **pickscore)
    images = [PIL.Image.open(folder / image) for image, _ in ROWS]
    expected = model.score(images, [prompt for _, prompt in ROWS])
    found = {(row["image"], row["prompt"]): row for row in rows if row["reward_model"] == "pickscore"}
    assert len(found) == len(ROWS)
    for (image, prompt), score in zip(ROWS, expected, strict=True):
        row = found[image, prompt]
        assert float(row["score"]) == pytest.approx(score, abs=1e-4)
        assert str(row["truncated"]) == str(prompt.startswith("word"))
        assert row["spec"] == str(model.spec)
    assert {str(row["truncated"]) for row in rows if row["reward_model"] == "sharpness"} <= {"", "None"}


def test_what_failed_is_listed_and_scored_the_next_time(folder, pickscore):
    (folder / "text.png").write_text("no image")
    table = write(
        folder / "pairs.csv", [*ROWS[:1], ("text.png", "x"), ("gone.png", "x"), ("gone.png", "y"), *ROWS[1:3]]
    )
    command = ("score", table, "--reward-model", "sharpness", "--reward-model", option(pickscore))
    result = invoke(*command)
    assert result.exit_code == 2
    assert f"failed: score row 3: {folder}/text.png cannot be decoded: expected PNG, JPEG" in result.stderr
    assert (
        f"failed: score rows 4, 5: {folder}/gone.png cannot be opened (No such file or directory): paths are"
        in result.stderr
    )
    assert result.stderr.count("failed:") == 2
    assert "Nothing else was lost" in result.stderr
    before = (folder / "pairs.scores.csv").read_bytes()
    assert len(read(folder / "pairs.scores.csv")) == 6
    PIL.Image.new("RGB", (20, 20)).save(folder / "gone.png")
    assert invoke(*command).exit_code == 2
    PIL.Image.new("RGB", (20, 20)).save(folder / "text.png")
    result = invoke(*command)
    assert result.exit_code == 0
    assert "2 scores added" in result.output
    after = (folder / "pairs.scores.csv").read_bytes()
    assert after.startswith(before)
    assert len(read(folder / "pairs.scores.csv")) == 12
    assert "0 scores added" in invoke(*command).output


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_line_cut_off_by_a_crash_is_made_again(folder, suffix):
    table = write(folder / f"pairs{suffix}")
    out = folder / f"pairs.scores{suffix}"
    assert invoke("score", table, "--reward-model", "sharpness,exposure").exit_code == 0
    whole = out.read_bytes()
    for length in (len(whole) - 1, len(whole) - 9, whole.index(b"\n") - 3, 0):
        out.write_bytes(whole[:length])
        assert invoke("score", table, "--reward-model", "sharpness,exposure").exit_code == 0
        key = ("image", "prompt", "reward_model")
        assert sorted(read(out), key=lambda row: str([row[k] for k in key])) == sorted(
            read(write_to(folder / f"whole{suffix}", whole)), key=lambda row: str([row[k] for k in key])
        )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_prompt_comes_back_as_it_was(folder, suffix):
    table = write(folder / "pairs.parquet", [("0.png", prompt) for prompt in ODD])
    out = folder / f"out{suffix}"
    for added in (len(ODD), 0):
        result = invoke("score", table, "--reward-model", "sharpness", "--out", out)
        assert result.exit_code == 0, result.output
        assert f"score: {added} scores added" in result.output
    assert [row["prompt"] for row in read(out)] == ODD


def test_lines_of_json_end_at_line_feeds_alone(folder):
    row = json.dumps({"image": "0.png", "prompt": "one\u2028two\x85three"}, ensure_ascii=False)
    (folder / "t.jsonl").write_text(row + "\n", encoding="utf-8")
    assert invoke("score", "t.jsonl", "--reward-model", "sharpness").exit_code == 0
    assert read_lines(folder / "t.scores.jsonl")[0]["prompt"] == "one\u2028two\x85three"
    assert "0 scores added" in invoke("score", "t.jsonl", "--reward-model", "sharpness").output


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_a_table_that_grows_keeps_its_scores(folder):
    table = write(folder / "pairs.csv", ROWS[:2])
    assert "2 scores added" in invoke("score", table, "--reward-model", "sharpness").output
    write(table, [ROWS[2], *ROWS[:2], ROWS[0]])
    result = invoke("score", table, "--reward-model", "sharpness")
    assert "1 scores added" in result.output
    found = [(row["image"], row["prompt"]) for row in read(folder / "pairs.scores.csv")]
    assert sorted(found) == sorted(ROWS[:3])


def test_a_prompt_too_long_for_csv_is_said_before_anything_is_scored(folder):
    table = write(folder / "pairs.jsonl", [("0.png", "word " * 30_000)])
    result = invoke("score", table, "--reward-model", "sharpness", "--out", "out.csv")
    assert result.exit_code == 2
    assert "row 1: the prompt has 150,000 characters" in result.stderr
    assert "give a file ending in .jsonl as --out" in result.stderr
    assert invoke("score", table, "--reward-model", "sharpness").exit_code == 0


@pytest.mark.parametrize("name", ["t.txt", "0.png"])
def test_what_is_neither_run_nor_table(folder, name):
    (folder / "t.txt").write_text("image,prompt\n")
    result = invoke("score", name, "--reward-model", "sharpness")
    assert result.exit_code == 2
    assert "is neither a run nor a table: expected a run folder" in result.stderr


HEADER = '"image","prompt","reward_model","score","truncated","special","spec"'
FOREIGN = {
    "n.csv": "my precious notes",
    "one.csv": 'size,note\n12",a big screen\n13,b\n',
    "order.csv": "image,prompt,reward_model,score,spec,truncated,special\n",
    "n.jsonl": '{"my": "notes"}',
    "short.csv": f'{HEADER}\n"a","b","c"\n',
    "spec.csv": f'{HEADER}\n"a","b","c",1,"","","nonsense"\n',
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_left_as_it_is(folder, name):
    write(folder / "pairs.parquet")
    (folder / name).write_text(FOREIGN[name])
    result = invoke("score", "pairs.parquet", "--reward-model", "sharpness", "--out", name)
    assert result.exit_code == 2
    assert f"{name} is there and does not hold scores" in result.stderr
    assert (folder / name).read_text() == FOREIGN[name]


def test_one_process_at_a_time_writes_an_output(folder):
    import fcntl

    table = write(folder / "pairs.csv")
    with (folder / "pairs.scores.csv").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = invoke("score", table, "--reward-model", "sharpness")
    assert result.exit_code == 2
    assert "pairs.scores.csv is in use by another process" in result.stderr


def test_rows_that_are_no_text_or_no_path_are_named(folder):
    (folder / "t.jsonl").write_text('{"image": "0.png", "prompt": "a"}\n{"image": "0.png", "prompt": "\\ud800"}\n')
    result = invoke("score", "t.jsonl", "--reward-model", "sharpness")
    assert (result.exit_code, "t.jsonl, row 2: half of a surrogate pair is no text" in result.stderr) == (2, True)
    (folder / "t.jsonl").write_text('{"image": "0.png", "prompt": "a"}\n{"image": "0\\u0000.png", "prompt": "b"}\n')
    result = invoke("score", "t.jsonl", "--reward-model", "sharpness")
    assert (result.exit_code, "1 scores added" in result.output) == (2, True)
    assert "row 2: " in result.stderr
    assert "null" in result.stderr


def test_a_model_that_cannot_be_loaded_leaves_the_others(folder, pickscore, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((pickscore["checkpoint"] / "model.safetensors").read_bytes()[:-100])
    models = f"sharpness,pickscore[checkpoint={broken},tokenizer={pickscore['tokenizer']}]"
    result = invoke("score", write(folder / "pairs.csv"), "--reward-model", models)
    assert result.exit_code == 2
    assert "4 scores added" in result.output
    assert result.stderr.count("failed: score pickscore: ") == 1
    assert str(broken) in result.stderr


def write_to(path, content):
    path.write_bytes(content)
    return path


def test_scores_of_another_checkpoint_are_not_mixed(folder, pickscore):
    table = write(folder / "pairs.csv")
    assert invoke("score", table, "--reward-model", option(pickscore)).exit_code == 0
    result = invoke("score", table, "--reward-model", option(pickscore, ",dtype=bfloat16,label=pickscore"))
    assert result.exit_code == 2
    assert "holds scores of pickscore = pickscore:pickscore?dtype=%22float32%22" in result.stderr
    assert "choose another file with --out" in result.stderr
    assert len(read(folder / "pairs.scores.csv")) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "image,prompt\n", "t.csv has no rows"),
        ("t.csv", "", "t.csv is empty"),
        ("t.csv", "file,prompt\na,b\n", "t.csv has no column 'image'"),
        ("t.csv", "image,prompt\n,b\n", "t.csv, row 2: the path of the image is empty"),
        ("t.jsonl", "", "t.jsonl has no rows"),
        ("t.jsonl", '{"image": "a", "prompt": 3}\n', "t.jsonl, row 1: expected a text as prompt, got 3"),
        ("t.jsonl", '{"image": "a"\n', "t.jsonl, line 1: not JSON"),
        ("t.jsonl", "[1]\n", "t.jsonl, line 1: expected an object with image and prompt"),
    ],
)
def test_a_table_that_is_none(folder, name, content, message):
    (folder / name).write_text(content)
    result = invoke("score", name, "--reward-model", "sharpness")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not list(folder.glob("*.scores.*"))


def test_what_cannot_be_the_output(folder):
    table = write(folder / "pairs.csv")
    for out, message in (
        ("x.txt", "expected a file ending in .csv or .jsonl as --out"),
        ("pairs.csv", "--out pairs.csv is the table itself"),
    ):
        result = invoke("score", "pairs.csv", "--reward-model", "sharpness", "--out", out)
        assert result.exit_code == 2
        assert message in result.stderr
    (folder / "other.csv").write_text("a,b\n1,2\n")
    result = invoke("score", table, "--reward-model", "sharpness", "--out", "other.csv")
    assert "other.csv is there and does not hold scores" in result.stderr
    assert "give --reward-model NAME" in invoke("score", table).stderr


def test_commas_in_brackets_part_options():
    assert split_names(["a,b[x=1,y=2] ,c", "d"]) == ["a", "b[x=1,y=2]", "c", "d"]
    assert split_names(None) == []
