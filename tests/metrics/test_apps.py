"""The pages of the metric folders: they start from their folder alone, and show what the functions give."""

import base64
import contextlib
import importlib.util
import io
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from widespectrum import functional

gradio = pytest.importorskip("gradio", reason="the pages need gradio")
import gradio_client  # noqa: E402  comes with gradio

# what the client's threads and sockets warn about is not ours
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

METRICS = Path(__file__).resolve().parents[2] / "metrics"
APPS = sorted(path.parent.name for path in METRICS.glob("*/page.py"))
SIX = {
    "r_io_po": [8, 10, 7, 7, 6, 4],
    "r_io_pa": [3, 6, 7, 5, 8, 2],
    "r_ia_po": [2, 1, 4, 1, 2, 5],
    "r_ia_pa": [7, 5, 4, 5, 2, 5],
}


def load_page():
    path = METRICS / "reward_bias" / "page.py"
    spec = importlib.util.spec_from_file_location("page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = load_page()
METRIC = types.SimpleNamespace(_compute=functional.reward_bias)
KINDS = {"prompt_id": str}


def table(columns):
    return {"headers": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}


def csv_file(folder, text, encoding="utf-8"):
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_it_listens(process, port):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the page ended: {process.stdout.read()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    pytest.fail("the page did not start within two minutes")


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """A client of each page, started as `python app.py`."""
    folder, processes, ports = tmp_path_factory.mktemp("pages"), {}, {}
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    environment |= {"HF_MODULES_CACHE": str(folder / "modules"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        for name in APPS:
            ports[name] = free_port()
            processes[name] = subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=METRICS / name,
                env=environment | {"GRADIO_SERVER_PORT": str(ports[name])},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        for name in APPS:
            wait_until_it_listens(processes[name], ports[name])
        options = {"verbose": False, "download_files": False, "analytics_enabled": False}
        yield {name: gradio_client.Client(f"http://127.0.0.1:{ports[name]}", **options) for name in APPS}
    finally:
        for process in processes.values():
            process.terminate()
            process.communicate(timeout=30)


def expected_rows(result, part="all"):
    """Figure, value and interval as the page writes them."""
    rows = {}
    for name, value in result.items():
        if isinstance(value, int | float) and not name.endswith(("_low", "_high")):
            ends = [result.get(f"{name}_ci_{end}") for end in ("low", "high")]
            interval = "" if None in ends else f"[{ends[0]:.3g}, {ends[1]:.3g}]"
            rows[part, name.replace("_", " ")] = (f"{value:.4g}", interval)
    return rows


def rows_of(figures):
    return {(part, name): (value, interval) for name, value, interval, part, _ in figures["data"]}


def assert_it_has_lines(plot):
    header, _, data = plot["plot"].partition(",")
    assert header.startswith("data:image/")
    pixels = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
    assert pixels.shape[0] > 300 < pixels.shape[1]
    assert 0.01 < (pixels < 128).mean() < 0.5


def test_every_metric_folder_has_the_same_page():
    assert sorted(path.parent.name for path in METRICS.glob("*/app.py")) == APPS
    assert len({(METRICS / name / "page.py").read_bytes() for name in APPS}) == 1


@pytest.mark.parametrize("name", APPS)
def test_the_example_computes(clients, name):
    first, second, figures, remarks = clients[name].predict(api_name="/compute")
    assert_it_has_lines(first)
    assert_it_has_lines(second)
    assert len(figures["data"]) > 5
    assert remarks.startswith("### Remarks\n* ")


def test_reward_bias_shows_what_the_function_gives(clients):
    columns = SIX | {"prompt_id": list("aabbcc"), "group": ["g", "h"] * 3, "verdict": [1, 1, 0.5, 1, 0, 1]}
    *_, figures, remarks = clients["reward_bias"].predict(table(columns | {"other": [1] * 6}), api_name="/compute")
    result = functional.reward_bias(**columns)
    shown = rows_of(figures)
    assert ("all", "image prior") in shown
    for part, block in {"all": result, "macro": result["macro"], **result["by_group"]}.items():
        expected = expected_rows(block, part)
        assert {key: shown[key] for key in expected} == expected
    assert "* `other`: this column is not used" in remarks
    assert f"* `prior_over_match`: {result['notes']['prior_over_match']}" in remarks


def test_the_example_of_reward_bias_is_the_one_of_the_documentation(clients):
    *_, figures, _ = clients["reward_bias"].predict(api_name="/compute")
    verdict = [1, 1, 0.5, 1, 0, 1]
    names = ["bus", "dog", "harbor", "market", "portrait", "tree"]
    expected = expected_rows(functional.reward_bias(**SIX, verdict=verdict, prompt_id=names))
    shown = rows_of(figures)
    assert {key: shown[key] for key in expected} == expected
    assert shown["all", "prior over match"][0] == "1.25"


def test_adherence_shows_what_the_function_gives(clients):
    columns = {"r_io_po": [9, 8, 7, 9], "r_ia_po": [2, 9, None, 4], "r_io_po_base": [8, 8, 7, 6]}
    columns |= {"r_ia_po_base": [3, 8, 1, 1], "verdict": [1, None, 0, 1], "status": ["ok", "ok", "refused", "ok"]}
    j = [[1.0] * 10 + [k] for k in (0.0, 0.5, 1.0, 2.0)]
    dimensions = [["clarity", "emotion"], ["clarity"], ["emotion"], ["clarity"]]
    result = functional.anti_aesthetic_adherence(**columns, j_io=j, j_ia=j[::-1], dimensions=dimensions)
    cells = {name: ["" if cell is None else str(cell) for cell in column] for name, column in columns.items()}
    cells |= {"j_io": ["; ".join(map(str, row)) for row in j], "j_ia": [str(row) for row in j[::-1]]}
    cells["dimensions"] = ["; ".join(row) for row in dimensions]
    *_, figures, remarks = clients["anti_aesthetic_adherence"].predict(table(cells), api_name="/compute")
    shown = rows_of(figures)
    for part, block in {"all": result, "base": result["base"], **result["by_dimension"]}.items():
        expected = expected_rows(block, part)
        assert {key: shown[key] for key in expected} == expected
    assert f"* `effect_gain`: {result['notes']['effect_gain']}" in remarks


@pytest.mark.parametrize(("answers", "scale"), [((0, 0.5, 1), {}), ((0, 1, 2), {"categories": (0, 1, 2), "tie": None})])
def test_judge_agreement_shows_what_the_function_gives_on_verdicts_and_on_levels(clients, answers, scale):
    low, middle, high = answers
    columns = {"verdict": [high, middle, low, None, high, high], "reference": [high, high, low, low, low, middle]}
    columns |= {"verdict_first": [high] * 6, "verdict_second": [high, low] * 3, "group": ["g", "h"] * 3}
    cells = {name: ["" if cell is None else str(cell) for cell in column] for name, column in columns.items()}
    *_, figures, remarks = clients["judge_agreement"].predict(table(cells), api_name="/compute")
    result, shown = functional.judge_agreement(**columns, **scale), rows_of(figures)
    for part, block in {"all": result, **result["by_group"]}.items():
        expected = expected_rows(block, part)
        assert {key: shown[key] for key in expected} == expected
    assert "* `verdict`: counts in 83% of the rows" in remarks


def test_ties_written_as_the_authors_do_are_no_level(clients):
    cells = {"verdict": ["1", "-1", "2"], "reference": ["1", "0", "1"]}
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^verdict, row 1 .* expected one of .* got -1"):
        clients["judge_agreement"].predict(table(cells), api_name="/compute")


def test_a_file_fills_the_table_and_a_bad_one_is_an_error_in_one_sentence(clients, tmp_path):
    client = clients["reward_bias"]
    text = " r_io_po ,r_io_pa,r_ia_po,r_ia_pa,verdict\n8,3,2,7,1\n10,6,1,5,\n\n"
    loaded = client.predict(gradio_client.handle_file(csv_file(tmp_path, text, "utf-8-sig")), api_name="/load")
    assert loaded["data"] == [["8", "3", "2", "7", "1"], ["10", "6", "1", "5", ""]]
    *_, figures, remarks = client.predict(loaded, api_name="/compute")
    assert rows_of(figures)["all", "image prior"][0] == "-3"
    assert "* `verdict`: counts in 50% of the rows" in remarks
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^expected columns separated by commas"):
        client.predict(gradio_client.handle_file(csv_file(tmp_path, text.replace(",", ";"))), api_name="/load")
    with pytest.raises(gradio_client.exceptions.AppError, match=r"lacks r_ia_pa$"):
        client.predict(gradio_client.handle_file(csv_file(tmp_path, text.replace("ia_pa", "x"))), api_name="/load")


def test_a_bad_table_is_an_error_in_one_sentence_and_the_page_stays_usable(clients):
    client = clients["reward_bias"]
    for cell, message in [("", "got None;"), ("3,5", "expected numbers such as 0.5, got '3,5'"), ("nan", "got nan;")]:
        bad = SIX | {"r_io_pa": [3, cell, 7, 5, 8, 2]}
        with pytest.raises(gradio_client.exceptions.AppError, match=rf"^r_io_pa, row 1 \(counted from 0\).*{message}"):
            client.predict(table(bad), api_name="/compute")
    assert len(client.predict(table(SIX), api_name="/compute")) == 4


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("a;b\n1;2\n", "utf-8", "expected columns separated by commas, got semicolons or tabs"),
        ("a\tb\n1\t2\n", "utf-8", "expected columns separated by commas, got semicolons or tabs"),
        ("a,b\n1,2\n", "utf-16", "expected a CSV file in UTF-8"),
        ('a,b\n1,"2"3\n', "utf-8", "expected a CSV file in UTF-8, got one that is not"),
        ("a,b\n1,2\n3\n", "utf-8", r"row 1 \(counted from 0\): expected 2 cells, got 1"),
        ("a,b\n", "utf-8", "expected a CSV file with a header and at least one row, got only a header"),
        ("", "utf-8", "expected a CSV file with a header and at least one row, got an empty file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, text, encoding, message):
    with pytest.raises(ValueError, match=message):
        page.read_csv(csv_file(tmp_path, text, encoding))


def frame(columns):
    return page.pd.DataFrame(columns, dtype=object)


def test_cells_become_inputs():
    columns = SIX | {"verdict": ["1", " ", None, float("nan"), 0.5, 0]}
    cells = frame({name: [str(cell) for cell in column] for name, column in SIX.items()})
    cells = cells.assign(verdict=columns["verdict"], prompt_id=[1, 2, 3, "a", "b ", "c"], group="", x=0)
    given, unused = page.inputs(METRIC, KINDS, cells)
    assert given["verdict"] == [1, None, None, None, 0.5, 0]
    assert given["prompt_id"] == ["1", "2", "3", "a", "b", "c"]
    assert given["r_io_po"] == SIX["r_io_po"]
    assert "group" not in given
    assert unused == ["x"]


def test_empty_rows_at_the_end_and_columns_without_a_name_are_none():
    cells = frame({"": [0, 1, 2]} | {name: [*column[:2], ""] for name, column in SIX.items()})
    given, unused = page.inputs(METRIC, KINDS, cells)
    assert given == {name: column[:2] for name, column in SIX.items()}
    assert unused == []
    gap = frame({name: [column[0], "", column[1]] for name, column in SIX.items()})
    assert page.inputs(METRIC, KINDS, gap)[0]["r_io_po"] == [8, None, 10]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({name: SIX[name] for name in list(SIX)[:3]}, "the table lacks r_ia_pa$"),
        ({name: [] for name in SIX}, "expected at least one row, got an empty table"),
        ({name: ["", " "] for name in SIX}, "expected at least one row, got an empty table"),
        (SIX | {"r_io_po ": [1] * 6}, "expected every column once, got 'r_io_po' several times"),
        (SIX | {"verdict": [1, 1, 1, "yes", 0, 0]}, r"^verdict, row 3 \(counted from 0\): expected numbers .* 'yes'$"),
    ],
)
def test_tables_that_cannot_be_used(columns, message):
    with pytest.raises(ValueError, match=message):
        page.inputs(METRIC, KINDS, frame(columns))


def test_remarks_tell_everything_once():
    inner = {"notes": {"b": "too few"}, "cautions": {"a": "read with care", "n": "few"}}
    result = {"notes": {"b": "too few"}, "cautions": {"a": "read with care"}, "by_group": {"g": inner}}
    result |= {"undefined_resamples": {"a": 3}, "coverage": {"c": 0.25, "d": 1.0, "e": 0.0}, "macro": {"notes": {}}}
    lines = page.remarks(result, ["x"]).splitlines()
    assert lines == [
        "### Remarks",
        "* `x`: this column is not used, since it is no input of the metric",
        "* `a`: read with care",
        "* `b`: too few",
        "* `a`: undefined in 3 of the resamples, which its interval leaves out",
        "* `c`: counts in 25% of the rows",
        "* `n` (g): few",
    ]
    assert page.remarks({"notes": {}}, []).splitlines() == ["### Remarks", "* none"]
