import logging

import pytest
from PIL.Image import Image

from tests.generators.apis import GOOD, KEY, KEYS, MAKERS, ask, error, everything, quick
from tests.image_api_server import Answer, chat, echoing, serving
from widespectrum.errors import InputError, ModelError

VENDORS = list(MAKERS)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quick(monkeypatch)


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_key_is_asked_for_before_anything_is_sent(vendor, monkeypatch):
    with serving([GOOD[vendor]]) as server:
        for name in KEYS:
            monkeypatch.delenv(name)
        assert isinstance(ask(MAKERS[vendor](server))[0], Image)
        away = MAKERS[vendor](server)
        away.base_url = "https://api.example.org/v1"
        for _ in range(2):
            with pytest.raises(InputError, match=r"needs an API key for api.example.org: set [A-Z_]+ in the envir"):
                away.open()
        monkeypatch.setenv(away._variable(), "sk with blanks")
        with pytest.raises(InputError, match="holds a space") as caught:
            away.open()
        assert "blanks" not in str(caught.value)


ECHOES = {
    "401": lambda vendor: error(vendor, 401, "ECHO is not a key"),
    "500": lambda vendor: error(vendor, 500, "ECHO failed"),
    "blocked": lambda vendor: error(vendor, 400, "ECHO was rejected by the safety system"),
    "unread": lambda vendor: error(vendor, 400, "ECHO what?"),
    "no image": lambda vendor: {
        "openai": Answer({"data": [{"b64_json": "ECHO"}]}),
        "chat": chat({"images": [{"image_url": {"url": "data:image/png;ECHO"}}]}),
        "replicate": Answer({"id": "ECHO", "status": "failed", "error": "ECHO", "model": "ECHO", "version": "ECHO"}),
    }[vendor],
    "words": lambda vendor: chat({"content": "You sent ECHO."}),
    "page": lambda vendor: Answer("ECHO"),
    "long": lambda vendor: error(vendor, 400, "x" * 280 + " ECHO"),
}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("echo", ECHOES)
def test_the_key_is_written_nowhere_even_where_the_server_sends_it_back(vendor, echo, capfd, caplog):
    caplog.set_level(logging.INFO)
    with serving(lambda received: echoing(ECHOES[echo](vendor), received)) as server:
        generator = MAKERS[vendor](server, attempts=2)
        seen = []
        try:
            seen += ask(generator)
        except (InputError, ModelError) as raised:
            seen.append(raised)
        calls = generator.take_calls()
        assert calls
        text = everything(*seen, *calls, generator.spec) + caplog.text + "".join(capfd.readouterr())
        assert KEY not in text
        assert KEY[:12] not in text
        # Of a body that is no prediction, nothing is shown.
        assert (vendor == "replicate" and echo in ("words", "page")) or f"[{generator._variable()}]" in text


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attempts": 0}, "attempts is 0, expected a whole number of 1 or more"),
        ({"concurrency": 2.5}, "concurrency is 2.5, expected a whole number"),
        ({"timeout": 0}, "timeout is 0, expected a number above 0"),
        ({"price": -1}, "price is -1, expected a number 0 or more"),
        ({"price": float("nan")}, "price is nan, expected a number 0 or more"),
        ({"base_url": "ftp://host"}, "the base URL is 'ftp://host', expected http"),
        ({"base_url": "https://host/v1?x=1"}, "has a query"),
        ({"base_url": "http://[::1"}, "is not one"),
        ({"model": ""}, "model is ''"),
    ],
)
@pytest.mark.parametrize("vendor", VENDORS)
def test_options_that_cannot_be(vendor, options, match):
    made = MAKERS[vendor]
    cls, model = type(made(type("", (), {"openai": "http://localhost", "url": "http://localhost"}))), None
    model = {"openai": "gpt-image-1.5", "chat": "a/b", "replicate": "a/b"}[vendor]
    with pytest.raises(InputError, match=match):
        cls(**{"model": model, **options})


def test_a_password_in_the_base_url_is_not_shown():
    with pytest.raises(InputError, match="holds no user and no password") as caught:
        type(MAKERS["openai"](type("", (), {"openai": "http://localhost"})))(
            model="m", base_url="https://me:hunter2@host/v1"
        )
    assert "hunter2" not in str(caught.value)


def test_an_account_at_openai_is_told_to_nobody_else(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    for vendor, told in (("openai", ["org-mine", "proj-mine"]), ("chat", [None, None])):
        with serving([GOOD[vendor]]) as server:
            ask(MAKERS[vendor](server))
            headers = server.requests[0].headers
            assert [headers["OpenAI-Organization"], headers["OpenAI-Project"]] == told
