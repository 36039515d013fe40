"""A small server on loopback that speaks the wire formats of three image APIs and goes wrong as it is told.

    with serving([too_many(2), openai_image()]) as server:
        OpenAIImages(model="gpt-image-1.5", base_url=server.openai)

`serving` takes answers in the order of the requests (the last one is repeated), or a function of the request. At
Replicate only the making of a prediction takes an answer; polls and files follow from it. Polls and files may fail too:
`trouble` are answers that are given to them first.
"""

import base64
import contextlib
import io
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import PIL.Image
from PIL.PngImagePlugin import PngInfo


@dataclass(frozen=True)
class Answer:
    """One response: `content` is sent as it is, or as JSON; after `delay` seconds, or `cut` half-way.

    Between its bytes `trickle` seconds pass.
    """

    content: object = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    cut: bool = False
    trickle: float = 0


@dataclass(frozen=True)
class Received:
    """One request: method, path, headers and JSON body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict

    @property
    def prompt(self) -> str:
        if "messages" in self.body:
            return self.body["messages"][0]["content"]
        return self.body.get("input", self.body)["prompt"]


def picture(color=(200, 30, 30), size=(8, 6), kind="PNG", mode="RGB") -> bytes:
    """A small image that carries metadata."""
    file = io.BytesIO()
    if kind == "PNG":
        info = PngInfo()
        info.add_text("prompt", "secret words")
        PIL.Image.new(mode, size, color).save(file, kind, pnginfo=info)
    else:
        exif = PIL.Image.Exif()
        exif[270] = "secret words"
        PIL.Image.new(mode, size, color).save(file, kind, exif=exif)
    return file.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_url(content: bytes, kind="png") -> str:
    return f"data:image/{kind};base64,{encoded(content)}"


def openai_image(content: bytes | None = None, **options) -> Answer:
    """What the images endpoint of OpenAI sends."""
    body = {
        "created": 1766000000,
        "background": "opaque",
        "data": [{"b64_json": encoded(content or picture())}],
        "output_format": "png",
        "quality": "high",
        "size": "1024x1024",
        "usage": {
            "input_tokens": 12,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 12},
            "output_tokens": 4160,
            "total_tokens": 4172,
        },
    }
    return Answer(body, **options)


def openai_error(status: int, message: str, code=None, kind="invalid_request_error", param=None, **options) -> Answer:
    return Answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, **options)


def openai_blocked() -> Answer:
    said = (
        "Your request was rejected by the safety system. If you believe this is an error, contact us at "
        "help.openai.com and include the request ID req_1. safety_violations=[violence]."
    )
    return openai_error(400, said, "moderation_blocked", "image_generation_user_error")


def too_many(wait: object = None, message="Rate limit reached for images per minute.") -> Answer:
    return openai_error(
        429, message, "rate_limit_exceeded", "requests", headers={} if wait is None else {"Retry-After": str(wait)}
    )


def chat(message: Mapping, finish="stop", native="STOP", cost: float | None = 0.0387, **options) -> Answer:
    """What OpenRouter sends: `message` is merged into the assistant's."""
    usage = {"prompt_tokens": 9, "completion_tokens": 1290, "total_tokens": 1299}
    body = {
        "id": "gen-1761234567-abc",
        "provider": "Google",
        "model": "google/gemini-2.5-flash-image",
        "object": "chat.completion",
        "created": 1761234567,
        "choices": [
            {
                "logprobs": None,
                "finish_reason": finish,
                "native_finish_reason": native,
                "index": 0,
                "message": {"role": "assistant", "content": "", "refusal": None, "reasoning": None, **message},
            }
        ],
        "usage": usage if cost is None else {**usage, "cost": cost, "is_byok": False},
    }
    return Answer(body, **options)


def chat_image(*contents: bytes, **options) -> Answer:
    images = [
        {"type": "image_url", "image_url": {"url": data_url(content)}, "index": number}
        for number, content in enumerate(contents or (picture(),))
    ]
    return chat({"images": images}, **options)


def openrouter_error(status: int, message: str, metadata: Mapping | None = None, **options) -> Answer:
    error = {"message": message, "code": status} | ({"metadata": metadata} if metadata else {})
    return Answer({"error": error, "user_id": "user_1"}, status, **options)


@dataclass(frozen=True)
class Prediction:
    """A prediction at Replicate: how often it is asked for before it is done, and what it comes to."""

    status: str = "succeeded"
    polls: int = 1
    files: Sequence[bytes] = ()
    output: object = ...
    error: str | None = None
    logs: str = ""


class Server(ThreadingHTTPServer):
    """What `serving` gives: where it is, what it received, and how many requests there were at a time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answers: Sequence | Callable, trouble: Sequence[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.trouble = answers, list(trouble)
        self.requests: list[Received] = []
        self.others: list[Received] = []
        self.most_at_once = self.at_once = 0
        self.predictions: dict[str, Prediction] = {}
        self.asked: dict[str, int] = {}
        self.canceled: list[str] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def openai(self) -> str:
        return f"{self.url}/v1"

    def answer(self, received: Received) -> Answer:
        """The answer to a request that makes an image."""
        with self.lock:
            self.requests.append(received)
            number = len(self.requests) - 1
        chosen = self.answers(received) if callable(self.answers) else self.answers[: number + 1][-1]
        if not isinstance(chosen, Prediction):
            return chosen
        with self.lock:
            name = f"p{number}"
            self.predictions[name], self.asked[name] = chosen, 0
        return Answer(self.shown(name, received.body["input"]), 201)

    def shown(self, name: str, given: Mapping | None = None) -> dict:
        """A prediction as Replicate shows it."""
        chosen = self.predictions[name]
        done = self.asked[name] >= chosen.polls
        output = [f"{self.url}/files/{name}/{n}" for n in range(len(chosen.files))]
        output = output if chosen.output is ... else chosen.output
        return {
            "id": name,
            "model": "qwen/qwen-image",
            "version": "hidden",
            "input": given or {},
            "logs": chosen.logs,
            "output": output if done and chosen.status == "succeeded" else None,
            "data_removed": False,
            "error": chosen.error if done else None,
            "source": "api",
            "status": chosen.status if done else "processing",
            "created_at": "2026-01-01T00:00:00.000Z",
            "urls": {
                "cancel": f"{self.url}/v1/predictions/{name}/cancel",
                "get": f"{self.url}/v1/predictions/{name}",
            },
            "metrics": {"predict_time": 1.5},
        }

    def other(self, received: Received) -> Answer:
        """The answer to a poll, a cancellation or a file."""
        with self.lock:
            self.others.append(received)
            if self.trouble:
                return self.trouble.pop(0)
            parts = received.path.strip("/").split("/")
            if parts[0] == "files":
                return Answer(self.predictions[parts[1]].files[int(parts[2])], headers={"Content-Type": "image/png"})
            if parts[-1] == "cancel":
                self.canceled.append(parts[-2])
                return Answer(self.shown(parts[-2]) | {"status": "canceled"})
            self.asked[parts[-1]] += 1
            return Answer(self.shown(parts[-1]))


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        received = Received("POST", self.path, self.headers, body)
        if self.path.endswith("/cancel"):
            self.send(self.server.other(received))
            return
        server = self.server
        with server.lock:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            answer = server.answer(received)
            server.closing.wait(answer.delay)
        finally:
            with server.lock:
                server.at_once -= 1
        self.send(answer)

    def do_GET(self) -> None:
        answer = self.server.other(Received("GET", self.path, self.headers, {}))
        self.server.closing.wait(answer.delay)
        self.send(answer)

    def send(self, answer: Answer) -> None:
        content = answer.content
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        with contextlib.suppress(ConnectionError):  # The client did not wait.
            self.send_response(answer.status)
            defaults = {"Content-Type": "application/json", "X-Request-Id": f"req_{len(self.server.requests)}"}
            for name, value in {**defaults, **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            sent = content[: len(content) // 2] if answer.cut else content
            for start in range(0, len(sent), 1 if answer.trickle else len(sent) or 1):
                self.wfile.write(sent[start : start + 1] if answer.trickle else sent)
                self.wfile.flush()
                self.server.closing.wait(answer.trickle)
            self.wfile.flush()
            self.close_connection = self.close_connection or answer.cut

    def log_message(self, *arguments) -> None:
        pass


def echoing(answer: Answer, received: Received) -> Answer:
    """The answer with the request's key in every text of it, as some servers send back what they got."""
    key = received.headers["Authorization"].removeprefix("Bearer ")
    text = json.dumps(answer.content).replace("ECHO", key)
    return replace(answer, content=json.loads(text), headers={**answer.headers, "X-Request-Id": f"req-{key}"})


@contextmanager
def serving(answers, trouble=()):
    """A running `Server`; no proxy stands between it and the client."""
    with (
        Server(answers, trouble) as server,
        mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}),
    ):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
