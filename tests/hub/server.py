"""A Hub in memory that speaks the HTTP API of the real one: datasets, Spaces and models, with faults on demand.

In a test: `with Hub() as hub:` and `HF_ENDPOINT=hub.url`, in this process or in another one.
By hand: `python tests/hub/server.py`, then `HF_ENDPOINT=http://127.0.0.1:8777 HF_TOKEN=hf_writer hf upload ...`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import uvicorn
from hub_api import ROUTES, Api, Call
from hub_repos import Refusal, Repo
from starlette.responses import HTMLResponse, JSONResponse, Response


@dataclass
class Fault:
    method: str
    path: str
    action: int | str | Callable[[], None]
    times: int
    skip: int = 0
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"error": "fault on demand"}'


@dataclass
class Entry:
    """A line of the log: `received` counts the bytes of the request's body that arrived; status 0: not answered."""

    method: str
    path: str
    status: int = 0
    received: int = 0


class Hub:
    """The server.

    `api.lfs = False` makes it take every file inside the commit, so that Xet is not asked for; `api.page` is the length
    of a page of long listings.
    """

    def __init__(self, *, port: int = 0) -> None:
        # with the protocol named, asyncio sets TCP_NODELAY; without, every request takes 40 ms
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.reset()
        config = uvicorn.Config(self, http="h11", ws="none", lifespan="off", log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def reset(self) -> None:
        """Forget everything."""
        self.api = Api(self.url)
        self.log: list[Entry] = []
        self.faults: list[Fault] = []

    def repo(self, kind: str, name: str) -> Repo:
        return self.api.repos[kind, name]

    def has(self, kind: str, name: str) -> bool:
        return (kind, name) in self.api.repos

    def fail(self, method: str, path: str, action: Any, times: int = 1, **how: Any) -> Fault:
        """Make the next `times` matching requests fail, after `skip` that do not.

        A number is the status that is answered, with `headers` and `body`. "cut" breaks the connection while the
        request is being read, "lost" carries the request out and breaks it in the middle of the answer, "slow" waits
        `seconds` first. A function is called before the request is carried out.
        """
        plan = Fault(method, path, action, times, **how)
        self.faults.append(plan)
        return plan

    def count(self, method: str, path: str) -> int:
        """How many requests matched; those that a slow fault holds back are among them."""
        return sum(entry.method == method and bool(re.search(path, entry.path)) for entry in self.log)

    def received(self, path: str = "") -> int:
        """The bytes of all request bodies that arrived at matching paths."""
        return sum(entry.received for entry in self.log if re.search(path, entry.path))

    def _fault(self, method: str, path: str) -> Fault | None:
        for plan in self.faults:
            if plan.method == method and plan.times > 0 and re.search(plan.path, path):
                if plan.skip > 0:
                    plan.skip -= 1
                    continue
                plan.times -= 1
                return plan
        return None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        entry = Entry(scope["method"], scope["raw_path"].decode())
        plan = self._fault(entry.method, entry.path)
        action = plan.action if plan else None
        self.log.append(entry)
        body = await self._read(receive, entry, whole=action != "cut")
        if plan and action == "slow":
            await asyncio.sleep(plan.seconds)
        # a client that died meanwhile has asked for nothing
        if action == "cut" or body is None or send.__self__.transport.is_closing():
            send.__self__.transport.abort()
            await asyncio.sleep(0.01)
            return
        if callable(action):
            action()
        response = self._failure(action, plan) if isinstance(action, int) else self._answer(entry, scope, body)
        entry.status = response.status_code
        await (self._lose(response, send) if action == "lost" else response(scope, receive, send))

    async def _read(self, receive: Any, entry: Entry, *, whole: bool) -> bytes | None:
        """The body of a request; None where the client hung up."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            entry.received = len(body)
            more = whole and message.get("more_body", False)
        return bytes(body)

    def _failure(self, status: int, plan: Fault) -> Response:
        if status >= 500:  # what answers in place of a Hub that is down speaks HTML
            return HTMLResponse("<html>fault on demand</html>", status, plan.headers)
        return Response(plan.body, status, plan.headers, "application/json")

    async def _lose(self, response: Response, send: Any) -> None:
        """Send half of an answer and hang up."""
        if half := response.body[: len(response.body) // 2]:
            await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
            await send({"type": "http.response.body", "body": half, "more_body": True})
        send.__self__.transport.close()
        await asyncio.sleep(0.01)

    def _answer(self, entry: Entry, scope: Any, body: bytes) -> Response:
        headers = {key.decode().lower(): value.decode("latin-1") for key, value in scope["headers"]}
        query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode()).items()}
        try:
            call = Call(entry.method, query, headers, body, self.api.user(headers))
            for methods, pattern, handler in ROUTES:
                if entry.method in methods.split() and (match := pattern.fullmatch(entry.path)):
                    parts = {key: unquote(value or "") for key, value in match.groupdict().items()}
                    answer = handler(self.api, call, **parts)
                    return answer if isinstance(answer, Response) else JSONResponse(answer)
            # among others /api/agent-harnesses, which every client asks for
            raise Refusal(404, "no such page")
        except Refusal as refusal:
            return JSONResponse(refusal.body, refusal.status, refusal.headers)


if __name__ == "__main__":
    with Hub(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8777) as running:
        print(f"HF_ENDPOINT={running.url} HF_TOKEN=hf_writer HF_HUB_DISABLE_XET=1")
        threading.Event().wait()
