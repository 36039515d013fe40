"""The models of a run in its manifest: pinned, told of each other, and asked whether anything is left."""

import pyarrow as pa
import pytest

from widespectrum import pipeline, runs, store
from widespectrum.config import parse_run_file, read_run_file
from widespectrum.errors import InputError, RunFolderError
from widespectrum.judges.majority import MajorityJudge
from widespectrum.run_models import Models, finished, register
from widespectrum.types import ModelSpec, Verdict


class Pinned:
    """A judge from the Hub, which has got a new commit since."""

    dimensions = ("overall",)

    def __init__(self, commit="old"):
        self.spec = ModelSpec(adapter="pinned", name="pinned", revision="v1", params={"commit": commit})

    def keep_to(self, spec):
        self.spec = spec


def enter(run, **judges):
    register(run, Models({}, {}, judges), ["judges"])
    return {label: ModelSpec.parse(text) for label, text in runs.read_manifest(run).specs["judges"].items()}


def test_a_judge_stays_at_the_commit_of_the_run(run_copy):
    enter(run_copy, mine=Pinned("old"))
    newer = Pinned("new")
    assert enter(run_copy, mine=newer)["mine"] == newer.spec == Pinned("old").spec


def test_one_judge_has_one_label(run_copy):
    with pytest.raises(InputError, match=r"^b is the same as a: delete one$"):
        enter(run_copy, a=Pinned(), b=Pinned())


def test_one_judge_has_one_label_in_all_commands(run_copy):
    """Unless nothing came of it under the other one."""
    enter(run_copy, a=Pinned())
    enter(run_copy, b=Pinned())
    row = Verdict(
        **{"prompt_id": "p", "image_id": "i", "rival_id": "", "dimension": "clarity", "judge": "a"},
        **{"outcome": 1.0, "order": "both", "rationale": ""},
    )
    store.append(run_copy, "verdicts", [row])
    with pytest.raises(InputError, match=r"^c is the same as a: delete one$"):
        enter(run_copy, c=Pinned())


def test_a_judge_without_results_may_be_corrected_in_the_run_file(run_copy):
    """And one with results may not: it is in the tables."""
    text = read_run_file(run_copy).text

    def asking(judge):
        return parse_run_file(f'{text}\n[[judges]]\nname = "rule"\nreward_model = "{judge}"\n')

    for judge in ("oracl", "oracle"):
        config = asking(judge)
        runs.check_run(run_copy, config)
        runs.save_run_file(run_copy, config)
    runs.check_run(run_copy, parse_run_file(text))
    with pytest.raises(RunFolderError, match="judges and reward models without results may change"):
        runs.check_run(run_copy, parse_run_file(text.replace('name = "pixel"', 'name = "rule"')))
    with pytest.raises(RunFolderError, match="judges and reward models without results may change"):
        runs.check_run(run_copy, parse_run_file(text.replace("strength = 3", "strength = 2")))


def test_a_majority_takes_in_the_specs_of_its_judges_wherever_it_stands(run_copy):
    found = enter(run_copy, m=MajorityJudge(judges="a;pixel"), a=Pinned())
    assert found["m"].params["judges"] == f"a {found['a'].key[:16]};pixel {found['pixel'].key[:16]}"
    # The same from the run, in which it is by now.
    assert enter(run_copy, m=MajorityJudge(judges="a;pixel")) == found


def test_a_majority_does_not_count_itself(run_copy):
    enter(run_copy, m=MajorityJudge(judges="a;pixel"), a=Pinned())
    with pytest.raises(InputError, match=r"^judge 'm': judges: .* of 'm', which is no judge of this run; .*a$"):
        enter(run_copy, m=MajorityJudge(judges="m;pixel"))


def is_finished(run):
    return finished(run, read_run_file(run))


def test_a_run_is_finished_once_every_judge_that_can_be_asked_has_answered(run_copy):
    assert is_finished(run_copy)
    # People cannot be asked here, nor can judges of other programs.
    for label in ("human", "external"):
        runs.register(run_copy, "judges", label, ModelSpec(adapter=label, name=label))
    assert is_finished(run_copy)
    runs.register(run_copy, "judges", "v", ModelSpec(adapter="vlm", name="vlm", params={"model": "x"}))
    assert not is_finished(run_copy)
    keys = {
        (
            pair.prompts["wide_spectrum"].prompt_id,
            pair.image_ids["wide_spectrum"],
            pair.image_ids["original"],
            "overall",
            "v",
        )
        for pair in pipeline.image_pairs(run_copy)
    }
    names = ("prompt_id", "image_id", "rival_id", "dimension", "judge")
    rows = [Verdict(**dict(zip(names, key, strict=True)), outcome=1.0, order="both", rationale="") for key in keys]
    store.append(run_copy, "verdicts", rows[1:])
    assert not is_finished(run_copy)
    store.append(run_copy, "verdicts", rows[:1])
    assert is_finished(run_copy)


def test_a_run_without_a_score_is_not_finished(run_copy):
    scores = store.read(run_copy, "scores")
    for part in store.parts(run_copy, "scores"):
        part.unlink()
    store.append(run_copy, "scores", pa.Table.from_batches(scores.to_batches()).slice(4))
    assert not is_finished(run_copy)
