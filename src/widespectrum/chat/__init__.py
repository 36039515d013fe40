"""Asking a model behind an OpenAI-compatible endpoint for JSON replies, with a journal of every request and reply.

    endpoint = Endpoint.parse("openai:gpt-5@https://api.openai.com/v1")
    with Chat(endpoint, Path("journal.jsonl")) as chat:
        reply = chat.ask("photo-1", [{"role": "user", "content": "Describe it."}], schema, images=[image])

The API key is read from OPENAI_API_KEY and is written nowhere.
"""

from __future__ import annotations

from .client import Chat
from .endpoint import Endpoint
from .pictures import Shown
from .questions import Question
from .replies import BadReplyError, Reply
from .tokens import Pricing

__all__ = ["BadReplyError", "Chat", "Endpoint", "Pricing", "Question", "Reply", "Shown"]
