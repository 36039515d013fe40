import itertools
from collections import Counter

import pytest

from tests.annotate.made import made_run
from widespectrum.annotate.items import Item, deal, key_of, pairs_of, plan, sample, serve
from widespectrum.errors import InputError, RunFolderError

KEYS = [(f"p{number}", f"a{number}", f"o{number}") for number in range(31)]


@pytest.mark.parametrize(("raters", "overlap"), [(3, 2), (4, 2), (5, 3), (7, 1), (2, 2), (20, 4)])
def test_every_pair_goes_to_as_many_raters_and_nobody_gets_more_than_one_above_another(raters, overlap):
    codes = [f"r{number}" for number in range(raters)]
    dealt = deal(KEYS, codes, overlap, seed=3)
    assert dealt == deal(KEYS, codes, overlap, seed=3)
    counts = Counter(key for keys in dealt.values() for key in keys)
    assert counts == dict.fromkeys(KEYS, overlap)
    assert all(len(set(keys)) == len(keys) for keys in dealt.values())
    sizes = [len(keys) for keys in dealt.values()]
    assert max(sizes) - min(sizes) <= 1


def test_raters_do_not_fall_into_fixed_couples():
    dealt = deal(KEYS, ["a", "b", "c", "d"], 2, seed=0)
    shared = [len(set(dealt[one]) & set(dealt[two])) for one, two in itertools.combinations(dealt, 2)]
    assert max(shared) - min(shared) <= 1


@pytest.mark.parametrize("overlap", [0, 3])
def test_an_overlap_that_cannot_be(overlap):
    with pytest.raises(InputError, match=rf"--overlap {overlap}: expected 1 to 2, the number of raters"):
        deal(KEYS, ["a", "b"], overlap, seed=0)


def test_a_newcomer_gets_what_has_the_fewest_answers_now_or_soon():
    answered = dict.fromkeys(KEYS, 1) | {KEYS[4]: 0, KEYS[9]: 0, KEYS[20]: 0}
    waiting = {KEYS[4]: 1, KEYS[9]: 2, KEYS[0]: 1}
    assert serve(KEYS, answered, waiting, 4) == [KEYS[20], KEYS[4], KEYS[1], KEYS[2]]


def test_a_sample_takes_as_many_of_every_generator(tmp_path):
    pairs, left_out = pairs_of(made_run(tmp_path, generators=("one", "two", "three")))
    assert (len(pairs), left_out) == (36, 0)
    drawn = sample(pairs, 8, seed=1)
    assert sorted(Counter(pair.generator for pair in drawn).values()) == [2, 3, 3]
    assert drawn == sample(reversed(pairs), 8, seed=1) == sample(pairs, None, seed=1)[:8]
    assert drawn != sample(pairs, 8, seed=2)


def test_pairs_of_some_generators_and_pairs_of_one_image(tmp_path):
    run = made_run(tmp_path, generators=("one", "two"), twins=(3, 5))
    pairs, left_out = pairs_of(run, ["two"])
    assert ({pair.generator for pair in pairs}, len(pairs), left_out) == ({"two"}, 10, 2)
    with pytest.raises(InputError, match="--generator three: it made no pair of this run; expected one of one, two"):
        pairs_of(run, ["three"])


def test_a_run_without_a_pair_to_judge(tmp_path):
    with pytest.raises(RunFolderError, match="holds no pair of two different images: run the generate stage first"):
        pairs_of(made_run(tmp_path, pairs=2, twins=(0, 1)))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pairs_of(made_run(tmp_path_factory.mktemp("plan") / "run", pairs=40))[0]


def planned(pairs, code="a1", seed=0, checks=0.25, n=20):
    return plan(pairs[:n], pairs, code=code, seed=seed, checks=checks)


def test_order_and_sides_are_drawn_from_seed_and_code(pairs):
    assert planned(pairs) == planned(pairs)
    keys = [[item.key for item in planned(pairs, code, seed)] for code, seed in (("a1", 0), ("a2", 0), ("a1", 1))]
    assert keys[0] != keys[1] != keys[2] != keys[0]
    sides = [{item.key: item.order for item in planned(pairs, code)} for code in ("a1", "a2")]
    assert {key for key in sides[0] if sides[0][key] != sides[1].get(key, sides[0][key])}
    assert Counter(item.order for item in planned(pairs)) in ({"first": 13, "second": 12}, {"first": 12, "second": 13})


def test_checks_are_of_both_kinds_lie_between_and_have_a_known_answer(pairs):
    items = planned(pairs)
    assert Counter(item.kind for item in items) == {"pair": 20, "other": 3, "same": 2}
    assert {item.key for item in items if item.kind == "pair"} == {key_of(pair) for pair in pairs[:20]}
    assert [item.kind for item in items] != sorted(item.kind for item in items)
    chosen = {pair.pair_id for pair in pairs[:20]}
    pair_of = {pair.prompts["wide_spectrum"].prompt_id: pair for pair in pairs}
    for item in items:
        pair = pair_of[item.prompt_id]
        if item.kind != "pair":
            assert pair.pair_id not in chosen
            assert item.image_id == pair.image_ids["wide_spectrum"]
        if item.kind == "same":
            assert item.shown == (item.image_id,) * 2
            assert [item.passed(choice) for choice in ("first", "second", "tie")] == [False, False, True]
        if item.kind == "other":
            rival = next(other for other in pairs if other.image_ids["original"] == item.rival_id)
            words = [set(each.prompts["original"].text.split()) for each in (pair, rival)]
            assert words[0] & words[1] == {"some"}
            assert item.passed(item.order)
            assert not item.passed("tie")


def test_a_study_of_one_pair_is_checked_with_twice_the_same_image(pairs):
    assert Counter(item.kind for item in plan(pairs[:1], pairs[:1], code="a", seed=0, checks=0.5)) == {
        "pair": 1,
        "same": 1,
    }
    assert [item.kind for item in planned(pairs, checks=0)] == ["pair"] * 20


@pytest.mark.parametrize(
    ("order", "choice", "outcome"),
    [
        ("first", "first", 1),
        ("first", "second", 0),
        ("second", "second", 1),
        ("second", "first", 0),
        ("first", "tie", 0.5),
    ],
)
def test_what_an_answer_means(order, choice, outcome):
    item = Item("pair", "p", "ia", "io", order)
    assert item.outcome(choice) == outcome
    assert item.shown == (("ia", "io") if order == "first" else ("io", "ia"))
