import re
import shutil
from collections import Counter

import pytest

from tests.annotate.made import answer_all, made_run, study_of
from widespectrum.annotate.log import folder_of, read_logs
from widespectrum.annotate.study import Settings, open_study, refusal, spec_of, texts
from widespectrum.errors import InputError, RunFolderError
from widespectrum.types import ModelSpec


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        *[("a1", ""), ("heron-42", ""), ("7f", ""), ("a" * 16, ""), ("", "empty"), ("ada@example.org", "mail")],
        *[("Ada Lovelace", "blank"), ("a\tb", "blank"), ("a", "form"), ("a" * 17, "form"), ("-ab", "form")],
        *[("ada_l", "form"), ("../a1", "form"), ("ärger", "form"), ("a1\n", "blank"), (".lock", "form")],
    ],
)
def test_codes_that_are_refused(code, why):
    assert refusal(code) == why
    assert not why or texts()["refusals"][why].endswith(".")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"raters": ("a1", "ada@x.org")}, r"--raters: 'ada@x.org' cannot be a code. That looks like an e-mail"),
        ({"raters": ("a1", "a1")}, "--raters: expected every code once; got a1, a1"),
        ({"raters": ("a1", "a2"), "overlap": 3}, "--overlap 3: expected 1 to 2, the number of raters"),
        ({"raters": ("a1",)}, "--overlap 2: expected 1 to 1"),
        ({"pairs": 0}, "--pairs 0: expected 1 or more"),
        ({"per_rater": 0}, "--per-rater 0: expected 1 or more"),
        ({"checks": 0.6}, "--checks 0.6: expected a share from 0 to 0.5 of the pairs"),
        ({"checks": float("nan")}, "--checks nan: expected a share"),
        ({"pairs": 13}, "--pairs 13: the run has 12 pairs to judge; ask for as many or fewer"),
        ({"overlap": 2}, "--overlap is for given codes: add --raters"),
        ({"raters": ("a1", "a2"), "per_rater": 3}, "--per-rater is for open codes: leave it away beside --raters"),
        ({"generators": ("other",)}, "--generator other: it made no pair of this run; expected one of painter"),
    ],
)
def test_settings_that_cannot_be(run, given, message):
    with pytest.raises(InputError, match=message):
        open_study(run, given)
    assert not (folder_of(run) / "study.json").exists()


def test_a_study_goes_on_as_it_was_started(run):
    first = study_of(run, raters=("a1", "a2", "a3"), pairs=6, seed=5)
    items = first.begin("a1").items
    again = study_of(run)
    assert (again.settings, again.keys) == (first.settings, first.keys)
    assert study_of(run, pairs=6).begin("a2").items != items
    for given, said in (
        ({"pairs": 7}, "--pairs 7: raters have begun with 6"),
        ({"raters": ("a1", "a2")}, "--raters a1, a2: raters have begun with a1, a2, a3"),
        ({"generators": ("painter",)}, "--generator painter: raters have begun with none"),
        ({"per_rater": 3}, "--per-rater 3: raters have begun with 40"),
    ):
        with pytest.raises(InputError, match=f"{said}, and a study stays as it is: leave the option away"):
            study_of(run, **given)


def test_before_anybody_has_begun_the_settings_may_change(run):
    study_of(run, raters=("a1", "a2"), pairs=6)
    assert (study_of(run, pairs=4).settings, len(study_of(run).keys)) == (Settings(raters=("a1", "a2"), pairs=4), 4)


def test_only_the_raters_that_were_named_may_come(run):
    study = study_of(run, raters=("a1", "a2"))
    assert [study.refusal(code) for code in ("a1", "a3", "a@b")] == ["", "unknown", "mail"]
    assert study_of(made_run(run.parent / "open")).refusal("a3") == ""


def test_newcomers_share_the_pairs_out_among_themselves(run):
    study = study_of(run, per_rater=4, checks=0)
    got = {code: {item.key for item in study.begin(code).items} for code in ("one", "two", "three")}
    assert Counter(key for keys in got.values() for key in keys) == dict.fromkeys(study.keys, 1)
    answer_all(read_logs(run)["one"])
    answer_all(read_logs(run)["three"])
    assert {item.key for item in study.begin("four").items} == got["two"]
    assert {item.key for item in study.begin("five").items} <= got["one"] | got["three"]


def test_who_has_not_come_back_is_not_waited_for(run):
    study = study_of(run, per_rater=12, checks=0)
    log = study.begin("gone")
    for item in log.items[:4]:
        log.answer(item.order)
    log.path.write_text(re.sub(r"\d{4}-\d\d-\d\d", "2026-01-02", log.path.read_text()))
    (log.path.parent / "study.json").write_text((log.path.parent / "study.json").read_text().replace(": 12,", ": 8,"))
    assert {item.key for item in study_of(run).begin("next").items} == {item.key for item in log.items[4:]}


def test_a_study_whose_images_are_gone(run):
    study_of(run).begin("a1")
    shutil.rmtree(run / "images")
    made_run(run.parent / "smaller", pairs=11)
    shutil.copytree(run.parent / "smaller" / "images", run / "images")
    with pytest.raises(RunFolderError, match=r"lacks 1 of the 12 pairs of its study: put the images back, or move"):
        open_study(run)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"keys": [["a"]], "text": "v1"}', '{"keys": [], "text": "v1", "x": 1}']
)
def test_a_damaged_study(run, content):
    study_of(run).begin("a1")
    (folder_of(run) / "study.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"study\.json is damaged .*: put it back as it was"):
        open_study(run)


def test_words_of_another_version_are_not_mixed_with_these(run):
    study_of(run).begin("a1")
    path = folder_of(run) / "study.json"
    path.write_text(path.read_text().replace('"text": "v1"', '"text": "v0"'))
    with pytest.raises(RunFolderError, match="read the words of version v0, and this widespectrum has v1"):
        open_study(run)


def test_a_run_without_a_study(run):
    with pytest.raises(RunFolderError, match="has no study: start one with `widespectrum annotate"):
        open_study(run)


def test_what_is_said_before_the_start(run):
    assert study_of(run, raters=("a1", "a2", "a3"), pairs=7).planned() == [
        "7 pairs of 1 generator",
        "3 raters; each pair goes to 2, each rater has 4 to 5",
        "attention checks beside them: 10% more",
    ]
    assert (
        "2 pairs of twice the same image are left out" in study_of(made_run(run.parent / "b", twins=(1, 2))).planned()
    )


def test_the_spec_of_a_rater_holds_the_words_and_parses_back():
    spec = spec_of("human", "a1")
    assert str(spec).startswith("human:a1@v1?instruction=")
    assert ModelSpec.parse(str(spec)) == spec
    assert len(spec.params["instruction"]) == 16
