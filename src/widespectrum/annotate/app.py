"""The pages of `widespectrum annotate`, on Gradio; what they show is decided by `desk`."""

from __future__ import annotations

import json
import socket
from importlib import resources
from typing import TYPE_CHECKING, Any

from widespectrum.errors import InputError, MissingExtraError

from .desk import Desk, Page
from .study import texts

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI

__all__ = ["application", "bound", "require_gradio", "serve"]

_THREADS = 40
"""How many answers are worked on at once; each takes some milliseconds and one fsync."""


def _file(name: str) -> str:
    return resources.files("widespectrum.annotate").joinpath(name).read_text(encoding="utf-8")


def _html(name: str, page: Page) -> str:
    from widespectrum.report.templating import template

    return template(f"{name}.html", package="widespectrum.annotate").render(page=page, texts=texts())


class _Pages:
    """The parts of the page, all of them there from the start; each event says anew which of them are seen."""

    def __init__(self, desk: Desk) -> None:
        import gradio as gr

        words = texts()
        self._desk = desk
        # Filled in by the browser, which knows where this tab is: the server may have been started anew since.
        self.call = gr.Textbox(visible=False)
        self.notice = gr.HTML()
        with gr.Column(visible=False, elem_id="people-welcome") as self.welcome:
            gr.HTML(_html("welcome", Page(screen="welcome")))
            self.consent = gr.Checkbox(label=words["consent"], elem_id="people-consent", container=False)
            self.code = gr.Textbox(label="Your code", info=words["code"], max_lines=1, elem_id="people-code")
            self.refusal = gr.HTML()
            self.begin = gr.Button("Begin", variant="primary", elem_id="people-begin")
        with gr.Column(visible=False, elem_id="people-pair") as self.pair:
            self.view = gr.HTML()
            with gr.Row(elem_id="people-buttons"):
                names = {"first": "First (1)", "second": "Second (2)", "tie": "Tie (t)", "undo": "Undo (u)"}
                self.buttons = {name: gr.Button(label, elem_id=f"people-{name}") for name, label in names.items()}
            gr.HTML(f"<p>{words['hint']}</p><p class='keys'>{words['keys']}</p>", elem_classes="hint")
        with gr.Column(visible=False, elem_id="people-end") as self.end:
            self.thanks = gr.HTML()
            self.back = gr.Button("Undo the last answer", elem_id="people-back")
        self.leave = gr.Button("Use another code", visible=False, size="sm", elem_id="people-leave")

    def outputs(self) -> list[Any]:
        """What every event sets."""
        undo = self.buttons["undo"]
        parts = (self.welcome, self.pair, self.end, self.leave, self.view, self.thanks, self.consent, self.code, undo)
        return [self.notice, self.refusal, *parts]

    def show(self, page: Page) -> list[Any]:
        """The values of `outputs` for a page."""
        import gradio as gr

        on = page.screen
        screens = [gr.update(visible=on == name) for name in ("welcome", "pair", "end")]
        views = [gr.update(value=_html(name, page) if on == name else "") for name in ("pair", "end")]
        # A new rater at the same screen consents anew; one whose code was refused need not.
        keep = on == "welcome" and bool(page.notice)
        inputs = [gr.update() if keep else gr.update(value=empty) for empty in (False, "")]
        undo = gr.update(interactive=page.place > 1)
        # Where the eyes are: beside the button that was refused, or above the pair.
        notices = [_html("notice", page) if (on == "welcome") == below else "" for below in (False, True)]
        return [*notices, *screens, gr.update(visible=on != "welcome"), *views, *inputs, undo]

    def change(self, call: str) -> list[Any]:
        """An answer, or one that is taken back, as `page.js` writes it."""
        try:
            asked = json.loads(call)
            code, n, what = str(asked["code"]), int(asked["n"]), str(asked["what"])
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
            return self.show(Page(screen="welcome"))
        return self.show(self._desk.undo(code, n) if what == "undo" else self._desk.answer(code, n, what))

    def enter(self, code: str, consent: bool) -> list[Any]:
        """The button of the welcome page."""
        return self.show(self._desk.enter(code or "", bool(consent)))

    def resume(self, call: str) -> list[Any]:
        """A page that was opened or loaded again; also by one who leaves, with no code."""
        return self.show(self._desk.resume(call or ""))


def _build(desk: Desk) -> gradio.Blocks:
    """The Gradio page. Nothing in it is known to Gradio's own API pages, and nothing is reported to anybody."""
    import gradio as gr

    with gr.Blocks(title=texts()["title"], analytics_enabled=False, fill_width=True) as blocks:
        pages = _Pages(desk)
        # Without the queue an event is one request: none is left open when the server ends, and none waits for another.
        common: dict[str, Any] = {
            "outputs": pages.outputs(),
            "queue": False,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        blocks.load(pages.resume, pages.call, js="() => window.people.where()", **common)
        pages.leave.click(pages.resume, pages.call, js="() => window.people.leave()", **common)
        for trigger in (pages.begin.click, pages.code.submit):
            trigger(pages.enter, [pages.code, pages.consent], **common)
        for name, button in pages.buttons.items():
            button.click(pages.change, pages.call, js=f"() => window.people.say('{name}')", **common)
        pages.back.click(pages.change, pages.call, js="() => window.people.say('undo')", **common)
    made: gradio.Blocks = blocks
    return made


def application(desk: Desk) -> FastAPI:
    """The pages and the images that they show, as a web application."""
    import gradio as gr
    from fastapi import FastAPI, Response

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/picture/{name}.png")
    def picture(name: str) -> Response:
        content = desk.picture(name)
        if content is None:
            return Response(status_code=404)
        # So that what was fetched ahead is there at once; no proxy keeps it, and the name means nothing later.
        headers = {"Cache-Control": "private, max-age=600"}
        return Response(content, media_type="image/png", headers=headers)

    @app.post("/gradio_api/upload")
    def upload() -> Response:
        # Gradio would keep files of anybody.
        return Response(status_code=404)

    blocks = _build(desk)
    blocks.max_threads = _THREADS
    font = ["system-ui", "sans-serif"]
    gr.mount_gradio_app(
        app,
        blocks,
        path="",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=gr.themes.Default(primary_hue="blue", font=font, font_mono=["monospace"]),
        css=_file("page.css"),
        head=f"<script>{_file('page.js')}</script>",
    )
    return app


def bound(host: str, port: int) -> socket.socket:
    """A socket at which the pages can be served; InputError where that place is taken or is none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot be used ({error}): choose another one") from error


def require_gradio() -> None:
    """MissingExtraError where Gradio is not installed."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'annotate needs Gradio, which is not installed: pip install "widespectrum[annotate]"'
        ) from error


def serve(application: FastAPI, listener: socket.socket) -> None:
    """Serve the pages until the process is told to stop."""
    import uvicorn

    # Addresses of raters are written nowhere, and a page that stays open does not keep the server from ending.
    config = uvicorn.Config(application, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])
