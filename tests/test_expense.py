"""What judging will cost, before it starts, and what it came to."""

import re

from widespectrum import judging, store
from widespectrum.expense import judge_lines, judge_summary
from widespectrum.judges import load_judge
from widespectrum.protocols import Answer
from widespectrum.types import ModelSpec

SERVER = {"model": "x", "base_url": "http://127.0.0.1:9/v1", "input_price": 1, "output_price": 10}


class Swayed:
    """Takes the image that is shown first."""

    spec = ModelSpec(adapter="fake", name="fake")
    dimensions = ("overall",)

    def judge(self, questions):
        return [Answer(float(question.order == "first")) for question in questions]


def test_the_table_counts_calls_and_not_questions(run_copy):
    verdicts, effects = (judging.planned(run_copy, name, load_judge(name, **SERVER)) for name in ("vlm", "vlm-effects"))
    done = judging.Judging(run_copy, "done", load_judge("vlm", **SERVER), [])
    head, columns, *rows = judge_lines(run_copy, [verdicts, effects, done])
    # 34 pairs in both orders; one request answers both questions about each of 34 images.
    assert head == "judge: 136 questions, 102 API calls"
    assert columns.split() == ["judge", "calls", "input", "tokens", "output", "tokens", "estimated", "cost"]
    found = {row.split()[0]: row.replace(",", "").split()[1:] for row in rows}
    assert {name: row[0] for name, row in found.items()} == {"vlm": "68", "vlm-effects": "34"}
    for _, sent, back, dollars in found.values():
        assert float(dollars.removeprefix("$")) == round((int(sent) + 10 * int(back)) / 1e6, 2)
    assert int(found["vlm"][2]) == 68 * verdicts.judge.output_tokens
    assert int(found["vlm-effects"][2]) == 34 * effects.judge.output_tokens


def test_the_sway_is_said_of_each_judge_alone(run_copy):
    def summary(label, model):
        work = judging.planned(run_copy, label, model)
        return list(judge_summary(run_copy, work, judging.judge_all(work, batch_size=8, description="judge")))

    first, sway = summary("a", Swayed())
    assert re.fullmatch(r"  a: 34 answered, 0 abstained, 0 left in [\d.]+ s", first)
    assert sway == "  a: position bias 100.0%: 34 of 34 verdicts change with the order"
    assert len(summary("b", Swayed())) == 2
    counted, swayed = summary("m", load_judge("majority", judges="a;b"))
    assert counted.startswith("  m: 34 answered, ")
    assert swayed.startswith("  m: position bias 100.0%: ")
    assert {row["judge"] for row in store.read(run_copy, "verdicts").to_pylist()} == {"pixel", "a", "b", "m"}
