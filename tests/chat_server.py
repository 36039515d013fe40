"""A small server on loopback that speaks the chat completions of OpenAI and goes wrong in the ways that it is told.

    with serving([{"rating": 3}, Reply(status=429, headers={"Retry-After": "2"})]) as server:
        Chat(Endpoint.parse(server.endpoint), ...)
        server.requests[0].body["messages"]

`serving` takes replies in the order of the requests (the last one is repeated), or a function of the request's body.
A reply is a text, a value that is sent as JSON text, or a `Reply`. Import it from `tests.chat_server`.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass(frozen=True)
class Reply:
    """One answer: the model's text, or an error `status`, or a raw `body`; after `delay` seconds, or `cut` half-way.

    With `chunked` it comes in chunks, the last of which a `cut` leaves out. `usage` None leaves out the figures.
    """

    text: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    error: str = "something went wrong"
    code: str | None = None
    refusal: str | None = None
    finish_reason: str = "stop"
    delay: float = 0
    cut: bool = False
    chunked: bool = False
    usage: Mapping | None = field(default_factory=lambda: dict(USAGE))


@dataclass(frozen=True)
class Received:
    """One request: its path, its headers and its JSON body."""

    path: str
    headers: Mapping[str, str]
    body: dict


class Server(ThreadingHTTPServer):
    """What `serving` gives: where it is, what it received, and how many requests there were at a time."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, replies: Sequence | Callable) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = replies
        self.requests = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def endpoint(self) -> str:
        return f"openai:org/tiny@{self.url}"

    def reply_to(self, received: Received) -> Reply:
        with self.lock:
            self.requests.append(received)
            number = len(self.requests) - 1
        chosen = self.replies(received.body) if callable(self.replies) else self.replies[: number + 1][-1]
        if isinstance(chosen, Reply):
            return chosen
        return Reply(chosen if isinstance(chosen, str) else json.dumps(chosen))


def completion(reply: Reply, number: int) -> str:
    """The body of a chat completion, or of an error."""
    if reply.body is not None:
        return reply.body
    if reply.status != 200:
        return json.dumps({"error": {"message": reply.error, "type": "test", "code": reply.code}})
    message = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
    return json.dumps(
        {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 1,
            "model": "tiny-2025",
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
            **({} if reply.usage is None else {"usage": reply.usage}),
        }
    )


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server = self.server
        length = int(self.headers["Content-Length"])
        try:
            content = self.rfile.read(length)
        except ConnectionError:
            content = b""
        if len(content) < length:
            return  # The client was killed while it was asking.
        with server.lock:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            reply = server.reply_to(Received(self.path, self.headers, json.loads(content)))
            server.closing.wait(reply.delay)
        finally:
            with server.lock:
                server.at_once -= 1
        content = completion(reply, len(server.requests)).encode()
        length = {"Transfer-Encoding": "chunked"} if reply.chunked else {"Content-Length": str(len(content))}
        if reply.chunked:
            # The older one, which closes the connection after every reply, knows no chunks.
            self.protocol_version, self.close_connection = "HTTP/1.1", True
            content = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:9], content[9:], b""))
        try:
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers, **length}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if reply.cut else content)
        except ConnectionError:
            pass  # The client did not wait.

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def serving(replies):
    """A running `Server`; no proxy stands between it and the client."""
    with Server(replies) as server, mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
