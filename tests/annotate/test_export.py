import json
from collections import Counter

import pytest

from tests.annotate.made import answer_all, made_run, study_of
from widespectrum import runs, store
from widespectrum.annotate import export
from widespectrum.annotate.log import RaterLog, folder_of, read_log, read_logs
from widespectrum.errors import InputError
from widespectrum.functional import judge_agreement
from widespectrum.types import ModelSpec, Verdict


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


def taken(run, **flags):
    return export.chosen(run, **{"include_failed": False, "include_unfinished": False} | flags)


def written(study, *, replace=False, **flags):
    with runs.locked(study.run):
        return export.write(study, taken(study.run, **flags).logs, replace=replace)


def rows(run, *labels):
    return [row for row in store.read(run, "verdicts").to_pylist() if not labels or row["judge"] in labels]


def for_the_light_one(item):
    return "second" if item.order == "first" else "first"


def answered(run, *codes, choose=lambda item: item.order, **given):
    study = study_of(run, raters=codes, **given)
    for code in codes:
        answer_all(study.begin(code), choose)
    return study


def test_a_rater_has_two_rows_per_pair_and_none_per_check(run):
    study = answered(run, "a1", "a2", overlap=1)
    assert written(study) == 24
    log = read_logs(run)["a1"]
    of_pairs = [item for item in log.items if item.kind == "pair"]
    mine = rows(run, "human:a1")
    assert len(mine) == 2 * len(of_pairs) == 12
    orders = {item.key: item.order for item in of_pairs}
    for row in mine:
        key = (row["prompt_id"], row["image_id"], row["rival_id"])
        assert row["order"] in (orders[key], "both")
        assert (row["outcome"], row["dimension"], row["rationale"], row["confidence"]) == (1.0, "overall", "", None)
    assert Counter(row["order"] == "both" for row in mine) == {True: 6, False: 6}
    assert rows(run, "people") == []


def test_the_majority_of_two_or_more(run):
    study = study_of(run, raters=("a1", "a2", "a3"), overlap=3, pairs=4, checks=0)
    logs = {code: study.begin(code) for code in ("a1", "a2", "a3")}
    said = dict(zip(study.keys, ((1, 1, 0), (1, 0, 0.5), (0, 0, 0.5), (0.5, 0.5, 1)), strict=True))
    for number, log in enumerate(logs.values()):
        for item in log.items:
            log.answer({1: item.order, 0: for_the_light_one(item), 0.5: "tie"}[said[item.key][number]])
    written(study)
    pooled = {(row["prompt_id"], row["image_id"], row["rival_id"]): row for row in rows(run, "people")}
    assert [pooled[key]["outcome"] for key in study.keys] == [1, 0.5, 0, 0.5]
    assert {row["order"] for row in pooled.values()} == {"both"}
    first = pooled[study.keys[0]]["details"]
    assert json.loads(first) == {"raters": {"a1": 1, "a2": 1, "a3": 0}}
    assert not export.pooled([logs["a1"]])


def test_the_manifest_says_who_judged_under_which_words(run):
    written(answered(run, "a1", "a2"))
    judges = {label: ModelSpec.parse(text) for label, text in runs.read_manifest(run).specs["judges"].items()}
    assert list(judges) == ["people", "human:a1", "human:a2"]
    assert [(spec.adapter, spec.name, spec.revision) for spec in judges.values()] == [
        ("people", "majority", "v1"),
        ("human", "a1", "v1"),
        ("human", "a2", "v1"),
    ]


def test_an_export_appends_what_is_new_and_nothing_twice(run):
    study = study_of(run, raters=("a1", "a2", "a3"))
    for code in ("a1", "a2"):
        answer_all(study.begin(code))
    runs.finish(run)
    store.append(run, "verdicts", [other_verdict()])
    assert written(study) == len(rows(run)) - 1
    parts = store.parts(run, "verdicts")
    assert written(study) == 0
    assert store.parts(run, "verdicts") == parts
    answer_all(study.begin("a3"))
    assert written(study) > 0
    assert store.parts(run, "verdicts")[: len(parts)] == parts
    assert len(store.keys(run, "verdicts")) == len(rows(run)) == 1 + 3 * 16 + 12
    assert runs.read_manifest(run).status == "complete"


def other_verdict():
    names = {"prompt_id": "p", "image_id": "a", "rival_id": "b", "dimension": "overall", "judge": "pixel"}
    return Verdict(**names, outcome=1.0, order="both", rationale="")


def test_an_answer_that_changed_since_is_named_and_replaced_on_demand(run):
    study = answered(run, "a1", "a2", overlap=2, checks=0)
    store.append(run, "verdicts", [other_verdict()])
    written(study)
    before = rows(run)
    log = read_logs(run)["a2"]
    last = log.items[-1]
    pair = study.pairs[last.key]
    log.undo()
    log.answer("tie")
    with pytest.raises(
        InputError, match=rf"the verdict of \S+ on pair '{pair.pair_id}' of painter, exported before, is not"
    ):
        written(study)
    assert rows(run) == before
    assert written(study, replace=True) == 12 + 2 * 24
    assert rows(run, "pixel") == [row for row in before if row["judge"] == "pixel"]
    new = {tuple(row[name] for name in store.KEYS["verdicts"]): row["outcome"] for row in rows(run)}
    assert len(new) == len(before)
    assert (new[*last.key, "overall", "human:a2", "both"], new[*last.key, "overall", "people", "both"]) == (0.5, 0.5)


def test_a_rater_who_withdraws_is_taken_out(run):
    study = answered(run, "a1", "a2", "a3", overlap=3)
    written(study)
    (folder_of(run) / "a2.jsonl").unlink()
    with pytest.raises(InputError, match=r"exported before, is not (the same|among the answers) any more"):
        written(study)
    written(study, replace=True)
    assert {row["judge"] for row in rows(run)} == {"people", "human:a1", "human:a3"}
    assert "a2" not in " ".join(row["details"] for row in rows(run))
    assert list(runs.read_manifest(run).specs["judges"]) == ["people", "human:a1", "human:a3"]


def test_raters_who_fail_the_checks_or_have_not_finished_are_left_out_and_that_is_said(run):
    study = study_of(run, raters=("a1", "a2", "a3"), checks=0.5, overlap=3)
    good, bad, early = (study.begin(code) for code in ("a1", "a2", "a3"))
    answer_all(good)
    for item in bad.items:
        bad.answer(for_the_light_one(item))
    early.answer("tie")
    found = taken(run)
    assert [log.code for log in found.logs] == ["a1"]
    assert found.said == (
        "a1: 18 of 18 answered, 6 of 6 checks passed",
        "a2: 18 of 18 answered, 0 of 6 checks passed: left out (below 75%); --include-failed takes it in",
        found.said[2],
    )
    assert found.said[2].startswith("a3: 1 of 18 answered, ")
    assert "--include-unfinished" in found.said[2]
    every = taken(run, include_failed=True, include_unfinished=True)
    assert [log.code for log in every.logs] == ["a1", "a2", "a3"]
    assert every.said[1].endswith(": taken in although below 75%")


@pytest.mark.parametrize(("passed", "is_in"), [(3, True), (2, False)])
def test_three_checks_of_four_are_enough(run, passed, is_in):
    study = study_of(run, raters=("a1", "a2"), checks=0.5, pairs=8)
    log = study.begin("a1")
    left = [passed]

    def check(item):
        left[0] -= item.kind != "pair"
        wrong = "second" if item.kind == "same" else "tie"
        right = "tie" if item.kind == "same" else item.order
        return right if left[0] >= 0 else wrong

    for item in log.items:
        log.answer(check(item))
    assert export.pass_rate(read_log(log.path)) == passed / 4
    assert bool(taken(run).logs) == is_in


def test_a_table_for_use_elsewhere(run):
    study = answered(run, "a1", "a2", choose=for_the_light_one)
    table = export.answer_table(study, taken(run).logs)
    assert len(table) == 24
    assert set(table["outcome"]) == {0.0}
    assert (table["answer"] == table["shown_first"].map({"original": "first", "wide_spectrum": "second"})).all()
    assert set(table["check_pass_rate"]) == {1.0}
    assert table["prompt"].str.endswith("drowned in gloom").all()
    agreement = judge_agreement(
        *(table[table["rater"] == code].sort_values("pair_id")["outcome"].tolist() for code in ("a1", "a2")),
        n_resamples=10,
    )
    assert agreement["accuracy"] == 1


def test_status_says_how_far_everybody_is(run):
    study = study_of(run, raters=("a1", "a2", "a3"), checks=0.5)
    answer_all(study.begin("a1"))
    study.begin("a2")
    lines = export.status(study).splitlines()
    assert lines[0].split("  ")[0] == "rater"
    assert lines[1].split()[:7] == ["a1", "12", "12", "4", "of", "4", "finished"]
    assert lines[2].split()[:7] == ["a2", "0", "12", "0", "of", "0", "unfinished"]
    assert lines[3].split() == ["a3", "0", "not", "begun"]
    assert lines[4] == "12 pairs, by answers: 4 with 0, 8 with 1"


def test_a_torn_line_is_said(run):
    study = answered(run, "a1", "a2")
    path = folder_of(run) / "a1.jsonl"
    path.write_bytes(path.read_bytes() + b'{"n": 9')
    assert any(
        line.endswith("a1.jsonl: the last line was cut off by a crash; it never counted") for line in taken(run).said
    )
    assert isinstance(read_logs(run)["a1"], RaterLog)
    assert written(study) == 2 * 24 + 12
