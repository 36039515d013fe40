"""What the tests of the client ask, and how they open it."""

import json

from widespectrum.chat import Chat, Endpoint, Question

KEY = "sk-a-very-secret-key"
SCHEMA = {
    "type": "object",
    "properties": {"rating": {"type": "integer"}},
    "required": ["rating"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "system", "content": "You rate."}, {"role": "user", "content": "How sharp is it?"}]
GOOD = {"rating": 3}


def opened(server, journal, **options):
    return Chat(Endpoint.parse(server.endpoint), journal, **options)


def lines(journal):
    return [json.loads(line) for line in journal.read_text("utf-8").splitlines()]


def questions(count):
    """Questions q0, q1, ... that ask for their own key."""
    return [Question(f"q{n}", [{"role": "user", "content": f"q{n}"}], SCHEMA) for n in range(count)]


def asked_for(body):
    """The key of the question of which this is the request's body."""
    return body["messages"][-1]["content"]
