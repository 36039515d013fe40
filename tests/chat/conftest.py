"""What every test of the client has: a key, a place for the journal, and no time to wait."""

import pytest

from tests.chat.asking import KEY


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that the client wanted to wait; it does not."""
    waited = []
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: waited.append(seconds))
    return waited


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.jsonl"
