"""What has to do with no prompt ends a generator, and is said once."""

import pytest

from tests.commands import invoke
from tests.generators.apis import GOOD, MAKERS, ask, error, quick
from tests.image_api_server import serving
from widespectrum.errors import GeneratorStoppedError
from widespectrum.protocols import Failure


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    quick(monkeypatch)


@pytest.mark.parametrize("vendor", MAKERS)
def test_a_server_that_gives_no_sign_of_life_is_given_up(vendor):
    with serving([GOOD[vendor]]) as server:
        generator = MAKERS[vendor](server, attempts=2, concurrency=1, timeout=5)
    for _ in range(4):
        (failure,) = ask(generator)
        assert isinstance(failure, Failure)
    for _ in range(2):
        with pytest.raises(GeneratorStoppedError, match=r"no answer from 127.0.0.1.* to 5 prompts in a row.*run again"):
            ask(generator)
    assert len(generator.take_calls()) == 10


def test_an_answer_of_any_kind_is_a_sign_of_life():
    with serving([error("chat", 500, "overloaded")]) as server:
        generator = MAKERS["chat"](server, attempts=1, concurrency=1)
        assert all(isinstance(ask(generator)[0], Failure) for _ in range(12))


@pytest.mark.parametrize("count", [1, 4])
def test_no_credit_is_one_failure_and_not_one_for_every_prompt(tmp_path, count):
    rows = [
        f"{n},{role},a cup {n} {role},{'clarity' if role != 'original' else ''}"
        for n in range(20)
        for role in ("original", "wide_spectrum")
    ]
    (tmp_path / "p.csv").write_text("\n".join(["pair_id,role,text,dimensions", *rows]))
    with serving([*[GOOD["chat"]] * 7, error("chat", 402, "Insufficient credits")]) as server:
        name = f"nano-banana[base_url={server.openai},concurrency={count}]"
        result = invoke("generate", "--generator", name, "--prompts", tmp_path / "p.csv", "--out", tmp_path / "run")
        received = len(server.requests)
    assert result.exit_code == 1
    assert 8 <= received <= 7 + count
    assert result.stderr.count("Insufficient credits") == 1
    assert "7 images, 0 refused, 33 not made in " in result.stdout
