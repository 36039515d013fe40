"""What the journals say of requests, faults, tokens, dollars and images."""

import json

import pytest

from tests.judge_report.made_run import FLIPS, HONEST, bare_run, journal_line, journal_lines
from widespectrum import store
from widespectrum.judge_report.cost import read_costs
from widespectrum.judge_report.tables import cost_table, dollars, image_table


@pytest.fixture
def run(tmp_path):
    bare_run(tmp_path / "run")
    (tmp_path / "run" / "journals").mkdir()
    return tmp_path / "run"


def write(path, lines, end=""):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + end, encoding="utf-8")


def shown(table):
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_everything_is_counted_once(run):
    write(store.journal(run, HONEST), journal_lines())
    (cost,) = read_costs(run)
    assert (cost.judge, cost.questions, cost.requests, cost.bad, cost.errors) == (HONEST, 30, 37, 1, 6)
    # every question has one good reply, and the seventh had a bad one before it, which was paid for too
    assert cost.input_tokens == sum(1000 + k for k in range(30)) + 1007
    assert cost.output_tokens == 31 * 20
    # the run file says 1 and 10 dollars per million tokens
    assert cost.dollars == pytest.approx((cost.input_tokens + 10 * cost.output_tokens) / 1e6)
    assert (cost.unpriced, cost.uncounted, cost.unreadable) == (0, 0, 0)
    assert cost.models == {"made/honest-8b-2026"}
    assert (cost.first, cost.last) == ("2026-11-20T10:00:00+00:00", "2026-11-20T10:29:00+00:00")
    assert shown(cost_table([cost])) == [["30", "37", "7", "31,442", "620", "0.038"]]
    assert shown(image_table([cost])) == [["7", "1,024", "512×384 · 515×384 · 518×384", "40.0 · 43.0 · 46.0"]]


def test_without_prices_the_cost_is_not_known_and_not_zero(run):
    write(store.journal(run, FLIPS), [journal_line(k) for k in range(3)])
    (cost,) = read_costs(run)
    assert (cost.unpriced, dollars(cost)) == (3, "not known")


def test_what_the_server_says_wins_over_prices(run):
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "cost": 0.5}
    write(store.journal(run, HONEST), [journal_line(0, usage=usage), journal_line(1, usage={**usage, "cost": 1.25})])
    assert read_costs(run)[0].dollars == 1.75


def test_what_was_paid_when_it_was_asked_wins_over_what_is_known_now(run):
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "cost": 0.5}
    paid = [{**journal_line(0, usage=usage), "cost": 0.25}, {**journal_line(1, usage=usage), "cost": None}]
    write(store.journal(run, HONEST), paid)
    assert read_costs(run)[0].dollars == 0.75


@pytest.mark.parametrize("usage", [None, "much", {}, {"prompt_tokens": -1, "completion_tokens": True}])
def test_a_reply_without_a_usable_count_is_said(run, usage):
    write(store.journal(run, HONEST), [journal_line(0), journal_line(1, usage=usage)])
    (cost,) = read_costs(run)
    assert (cost.input_tokens, cost.uncounted, cost.unpriced) == (1000, 1, 1)
    assert shown(cost_table([cost])) == [["2", "2", "0", "over 1,000", "over 20", "over 0.0012"]]
    write(store.journal(run, HONEST), [journal_line(1, usage=usage)])
    assert shown(cost_table(read_costs(run))) == [["1", "1", "0", "not known", "not known", "not known"]]


def test_requests_that_came_to_nothing_cost_nothing(run):
    write(store.journal(run, HONEST), [journal_line(0, "error"), journal_line(0, "error", attempt=2)])
    (cost,) = read_costs(run)
    assert (cost.requests, cost.errors, cost.unpriced, cost.dollars) == (2, 2, 0, 0)


def test_a_line_that_is_being_written_is_left_and_a_damaged_one_is_said(run):
    lines = json.dumps(journal_line(0)) + "\n{broken}\n[1]\n" + json.dumps(journal_line(1)) + '\n{"key": "q2", '
    store.journal(run, HONEST).write_text(lines, encoding="utf-8")
    (cost,) = read_costs(run)
    assert (cost.requests, cost.unreadable) == (2, 2)


def test_what_a_server_or_a_stranger_wrote_can_be_printed(run):
    odd = json.dumps({**journal_line(0), "model": "tiny \ud83d"})
    # JSON that Python reads as infinity.
    endless = json.dumps(journal_line(1)).replace('"max_side": 1024', '"max_side": 1e999')
    assert "1e999" in endless
    store.journal(run, HONEST).write_text(f"{odd}\n{endless}\n{'[' * 50_000}\n", encoding="utf-8")
    (cost,) = read_costs(run)
    assert (cost.requests, cost.unreadable, cost.models) == (1, 2, {"tiny \\ud83d"})


def test_other_journals_go_by_their_file_and_named_ones_by_their_judge(run, tmp_path):
    write(run / "journals" / "stranger.jsonl", [journal_line(0)])
    write(tmp_path / "mine.jsonl", [journal_line(k) for k in range(4)])
    text = (run / "run.toml").read_text(encoding="utf-8")
    named = text.replace("input_price", f"journal = '{tmp_path / 'mine.jsonl'}'\ninput_price")
    (run / "run.toml").write_text(named, encoding="utf-8")
    assert {cost.judge: cost.requests for cost in read_costs(run)} == {HONEST: 4, "stranger": 1}


def test_without_journals_there_is_nothing_to_say(run):
    assert read_costs(run) == []
    assert cost_table([]) is None
    assert image_table([]) is None
