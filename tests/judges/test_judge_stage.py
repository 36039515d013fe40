"""`widespectrum judge` with models behind an endpoint, from the command to the tables, on the small run."""

import collections
import json
import re

import pytest

from tests.chat_server import Reply, serving
from tests.commands import invoke
from tests.judges import endpoints
from widespectrum import pipeline, store
from widespectrum.config import read_run_file
from widespectrum.run_models import finished
from widespectrum.runs import read_manifest

LABEL = "vlm[model=tiny]"
IDENTICAL = 22
"""Pairs of the small run of which both images are the same file: their two orders are one request."""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: False)


def judge(run, *judges, **options):
    more = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
    return invoke("judge", run, *(text for each in judges for text in ("--judge", each)), *more)


def vlm(server, model="tiny", **options):
    given = {"model": model, "base_url": server.url, "attempts": 2, **options}
    return f"vlm[{','.join(f'{name}={value}' for name, value in given.items())}]"


def rows(run, label=LABEL, table="verdicts"):
    return [row for row in store.read(run, table).to_pylist() if row["judge"] == label]


def shown(rows):
    """(prompt, image, rival) → order → outcome."""
    found = collections.defaultdict(dict)
    for row in rows:
        found[row["prompt_id"], row["image_id"], row["rival_id"]][row["order"]] = row["outcome"]
    return dict(found)


def asked_for(prompt):
    return lambda body: prompt.text in endpoints.text(body)


def test_a_judge_that_was_only_tried_does_not_leave_the_run_unfinished(run_copy):
    with serving([Reply(status=404, error="no such model")]) as server:
        assert judge(run_copy, vlm(server)).exit_code == 2
    assert LABEL not in read_manifest(run_copy).specs["judges"]
    assert finished(run_copy, read_run_file(run_copy))


def test_a_judge_that_always_takes_the_first_image_ends_in_ties(run_copy):
    with serving(endpoints.always("first")) as server:
        result = judge(run_copy, vlm(server))
    assert result.exit_code == 0, result.output
    pairs = pipeline.image_pairs(run_copy)
    found = rows(run_copy)
    assert {row["dimension"] for row in found} == {"overall"}
    assert {tuple(sorted(each.items())) for each in shown(found).values()} == {
        (("both", 0.5), ("first", 1.0), ("second", 0.0))
    }
    assert len(found) == 3 * len(pairs) == 3 * len(shown(found))
    assert "position bias 100.0%" in result.output
    raw = {row["order"]: row["raw"] for row in found}
    assert raw["both"] == ""
    assert json.loads(raw["first"]) == json.loads(raw["second"]) == endpoints.always("first")({})
    assert {row["rationale"] for row in found if row["order"] == "both"} == {"the two orders disagree"}
    journal = (run_copy / "journals").glob("*.jsonl")
    assert sum(len(file.read_text().splitlines()) for file in journal) == len(server.requests)


def test_an_honest_judge_is_not_swayed(run_copy):
    with serving(endpoints.darker) as server:
        result = judge(run_copy, vlm(server))
        again = judge(run_copy, vlm(server))
    assert (result.exit_code, again.exit_code) == (0, 0)
    assert "position bias 0.0%" in result.output
    outcomes = shown(rows(run_copy)).values()
    assert all(len(set(each.values())) == 1 for each in outcomes)
    assert len({each["both"] for each in outcomes}) > 1
    assert len(server.requests) == 2 * len(outcomes) - IDENTICAL
    assert "judge: 0 questions, 0 API calls" in again.output


def test_refusals_are_abstentions_and_malformed_replies_are_asked_again(run_copy):
    prompts = list({pair.prompts["wide_spectrum"] for pair in pipeline.image_pairs(run_copy)})
    refused, malformed = map(asked_for, prompts[:2])
    faults = {refused: endpoints.REFUSAL, malformed: endpoints.MALFORMED}

    def reply(body):
        return next((fault for asks, fault in faults.items() if asks(body)), None) or endpoints.darker(body)

    with serving(reply) as server:
        result = judge(run_copy, vlm(server))
        assert result.exit_code == 1
        assert re.search(r"judge vlm\[model=tiny\]: .*gave no reply to a question that fits the schema", result.output)
        abstained = rows(run_copy, table="abstentions")
        assert {row["prompt_id"] for row in abstained} == {prompts[0].prompt_id}
        assert {row["raw"] for row in abstained} == {endpoints.REFUSAL.refusal}
        assert "declined to answer" in result.output
        kept = shown(rows(run_copy))
        assert {prompts[0].prompt_id, prompts[1].prompt_id}.isdisjoint(key[0] for key in kept)
        assert {len(each) for each in kept.values()} == {3}
        before = len(server.requests)
        del faults[malformed]
        again = judge(run_copy, vlm(server))
    assert again.exit_code == 0, again.output
    assert all(asked_for(prompts[1])(received.body) for received in server.requests[before:])
    assert len(server.requests) > before
    found = shown(rows(run_copy))
    assert len(found) + len(abstained) == len(pipeline.image_pairs(run_copy))
    assert found.items() >= kept.items()


def test_half_a_surrogate_pair_among_the_thoughts_can_be_stored(run_copy):
    said = json.dumps(endpoints.verdict("first"))
    with serving(lambda body: f"<think>\ud83d</think>{said}") as server:
        result = judge(run_copy, vlm(server))
    assert result.exit_code == 0, result.output
    assert {row["raw"] for row in rows(run_copy) if row["order"] != "both"} == {f"<think>\\ud83d</think>{said}"}


def test_the_table_of_cost_comes_first_and_max_cost_stops_cleanly(run_copy):
    pairs = len(pipeline.image_pairs(run_copy))
    with serving(endpoints.darker) as server:
        prices = {"input_price": 2, "output_price": 10, "concurrency": 2}
        unknown = judge(run_copy, vlm(server), max_cost=0.01)
        assert unknown.exit_code == 2
        assert "give input_price= and output_price=" in unknown.output
        assert server.requests == []
        stopped = judge(run_copy, vlm(server, **prices), max_cost=0.006)
        assert stopped.exit_code == 1
        assert re.search(rf"judge: {2 * pairs} questions, {2 * pairs} API calls\n", stopped.stdout)
        assert re.search(rf"{re.escape(LABEL)} +{2 * pairs} .*\$\d", stopped.stdout)
        assert "the budget of $0.01 is spent" in stopped.output
        first = len(server.requests)
        kept = shown(rows(run_copy))
        assert 0 < len(kept) < pairs
        assert {len(each) for each in kept.values()} == {3}
        finished = judge(run_copy, vlm(server, **prices))
    assert finished.exit_code == 0, finished.output
    assert len(shown(rows(run_copy))) == pairs
    # What was answered before the stop is not asked again, whole pair or not.
    assert len(server.requests) == 2 * pairs - IDENTICAL
    assert first < len(server.requests)


def test_two_judges_and_their_majority(run_copy):
    def reply(body):
        return {"honest": endpoints.darker, "biased": endpoints.always("second")}[body["model"]](body)

    honest, biased = (f"vlm[model={name}]" for name in ("honest", "biased"))
    third = "pixel"
    majority = f"majority[judges={honest};{biased};{third}]"
    with serving(reply) as server:
        result = judge(run_copy, majority, vlm(server, "honest"), vlm(server, "biased"), third)
    assert result.exit_code == 0, result.output
    found = {label: shown(rows(run_copy, label)) for label in (honest, biased, third, majority)}
    assert len(found[majority]) > 0
    for key, said in found[majority].items():
        votes = [found[label].get(key, {}).get("both") for label in (honest, biased, third)]
        assert votes[1] == 0.5
        counted = collections.Counter(vote for vote in votes if vote is not None)
        assert said["both"] == next((vote for vote, count in counted.items() if count >= 2), 0.5)


def test_the_effect_judge_stores_what_it_looked_for(run_copy):
    with serving(endpoints.rating(effect_1=40, main_concept=90)) as server:
        result = judge(run_copy, vlm(server).replace("vlm", "vlm-effects", 1))
    assert result.exit_code == 0, result.output
    found = rows(run_copy, "vlm-effects[model=tiny]")
    prompts = {pair.prompts["wide_spectrum"].prompt_id: pair.prompts for pair in pipeline.image_pairs(run_copy)}
    assert {row["dimension"]: row["outcome"] for row in found} == {"effects": 0.4, "main concept": 0.9}
    assert len(server.requests) == len(found) / 2
    for row in found:
        details = json.loads(row["details"])
        pair = prompts[row["prompt_id"]]
        assert [each["dimension"] for each in details["effects"]] == list(pair["wide_spectrum"].dimensions)
        assert details["main_concept"] == {"looked_for": pair["original"].text, "visible": 90}


def test_a_budget_that_ends_between_two_judges(run_copy):
    pairs = len(pipeline.image_pairs(run_copy))
    with serving(endpoints.darker) as server:
        judges = [vlm(server, name, concurrency=1) for name in ("one", "two")]
        stopped = judge(run_copy, *judges, "rule[reward_model=oracle]", max_calls=2 * pairs - IDENTICAL + 5)
        assert stopped.exit_code == 1
        assert "the budget of 51 calls is spent" in stopped.stderr
        kept = {name: shown(rows(run_copy, f"vlm[model={name}]")) for name in ("one", "two")}
        assert len(kept["one"]) == pairs > len(kept["two"]) > 0
        assert f"{pairs - len(kept['two'])} answers remain" in stopped.stderr
        assert server.requests[-1].body["model"] == "two"
        # Judges that cost nothing go on.
        assert len(shown(rows(run_copy, "rule[reward_model=oracle]"))) == pairs
        assert read_manifest(run_copy).status == "started"
        none = judge(run_copy, judges[1], vlm(server, "three"), max_calls=1)
        third = pairs - len(shown(rows(run_copy, "vlm[model=two]"))) + pairs
        assert f"{third} answers remain" in none.stderr
        assert {received.body["model"] for received in server.requests[51:]} == {"two"}
        finished = judge(run_copy, judges[1], vlm(server, "three"))
        assert finished.exit_code == 0, finished.output
    assert len(server.requests) == 3 * (2 * pairs - IDENTICAL)
    assert read_manifest(run_copy).status == "complete"


def test_a_judge_that_cannot_be_asked_does_not_hold_up_the_next(run_copy):
    refused = endpoints.Reply(status=401, error="wrong key")

    def reply(body):
        return refused if body["model"] == "locked" else endpoints.darker(body)

    with serving(reply) as server:
        result = judge(run_copy, vlm(server, "locked"), vlm(server, "open"))
    assert result.exit_code == 2
    (line,) = re.findall(r"failed: (.*)\n", result.stderr)
    assert re.match(r"judge vlm\[model=locked\]: .*401: wrong key.*OPENAI_API_KEY", line)
    assert rows(run_copy, "vlm[model=locked]") == []
    assert len(shown(rows(run_copy, "vlm[model=open]"))) == len(pipeline.image_pairs(run_copy))


def test_a_whole_run_keeps_to_its_budget_too(run_copy):
    with serving(endpoints.darker) as server, (run_copy / "run.toml").open("a") as file:
        file.write(f"\n[[judges]]\nname = 'vlm'\nmodel = 'tiny'\nbase_url = '{server.url}'\n")
        file.flush()
        result = invoke("run", run_copy, "--max-calls", "5")
    assert result.exit_code == 1
    assert "the budget of 5 calls is spent" in result.stderr
    assert len(server.requests) == 5
