"""Where a model is asked."""

import sys

import pytest

from tests.chat.asking import GOOD, MESSAGES, SCHEMA, opened
from tests.chat_server import serving
from widespectrum.chat import Chat, Endpoint
from widespectrum.errors import InputError, MissingExtraError


@pytest.mark.parametrize(
    ("text", "model", "base_url", "is_local"),
    [
        ("openai:gpt-5@https://api.openai.com/v1", "gpt-5", "https://api.openai.com/v1", False),
        ("openai:org/m:free@x@http://localhost:8000/v1/", "org/m:free@x", "http://localhost:8000/v1", True),
        ("openai:m@http://[::1]:80/v1", "m", "http://[::1]:80/v1", True),
        ("openai:m@http://127.8.8.8", "m", "http://127.8.8.8", True),
        ("openai:m@http://localhost.example.org", "m", "http://localhost.example.org", False),
    ],
)
def test_an_endpoint_is_read_and_written(text, model, base_url, is_local):
    endpoint = Endpoint.parse(text)
    assert (endpoint.model, endpoint.base_url, endpoint.is_local) == (model, base_url, is_local)
    assert Endpoint.parse(str(endpoint)) == endpoint == Endpoint(model, base_url)


@pytest.mark.parametrize(
    "text",
    [
        "gpt-5@https://api.openai.com/v1",
        "openai:gpt-5",
        "openai:@http://localhost",
        "openai:m@localhost:8000/v1",
        "openai:m@ftp://localhost",
        "openai:m@http://",
        "openai:m@http://a..b/v1",
        "openai:m@http://h:99999/v1",
        "openai:m@http://[::1/v1",
        "openai:m@http://h/v1?key=1",
        "openai:m@http://h/a b",
    ],
)
def test_what_is_no_endpoint_is_refused_with_the_form(text):
    with pytest.raises(InputError, match="openai:<model>@<base URL>"):
        Endpoint.parse(text)


def test_a_password_in_the_url_is_refused_and_not_shown():
    for make in (
        lambda: Endpoint.parse("openai:m@https://me:hunter2@h/v1"),
        lambda: Endpoint("m", "http://me:hunter2@h"),
    ):
        with pytest.raises(InputError, match="no password: set OPENAI_API_KEY") as caught:
            make()
        assert "hunter2" not in str(caught.value)


def test_a_key_is_needed_where_the_server_is_not_local(monkeypatch, journal):
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(InputError, match=r"openai:m@https://h/v1 needs an API key: set OPENAI_API_KEY"):
        Chat(Endpoint.parse("openai:m@https://h/v1"), journal)
    assert not journal.exists()
    with serving([GOOD]) as server, opened(server, journal) as chat:
        assert chat.ask("q", MESSAGES, SCHEMA) == GOOD
        assert server.requests[0].headers["Authorization"] == "Bearer none"
        monkeypatch.setenv("OPENAI_API_KEY", "k\N{LATIN SMALL LETTER E WITH ACUTE}y")
        with pytest.raises(InputError, match="outside ASCII") as caught:
            opened(server, journal)
        assert "k\N{LATIN SMALL LETTER E WITH ACUTE}y" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"attempts": 0}, "attempts is 0, expected 1"), ({"timeout": 0}, "timeout is 0, expected seconds above 0")],
)
def test_options_that_cannot_be(journal, option, message):
    with pytest.raises(InputError, match=message):
        Chat(Endpoint("m", "http://localhost"), journal, **option)


@pytest.mark.parametrize("package", ["openai", "jsonschema"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, journal, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'{package}, .*pip install "widespectrum\[judges\]"'):
        Chat(Endpoint("m", "http://localhost"), journal)
