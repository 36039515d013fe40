"""The pages in a real browser, against a real server process."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.annotate.made import made_run
from widespectrum.annotate.log import folder_of, read_log, read_logs
from widespectrum.pipeline import read_prompts

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
COMMAND = "import typer; from widespectrum.cli_annotate import annotate; typer.run(annotate)"
OPTIONS = ("--raters", "a1,a2,a3,a4,a5", "--overlap", "5", "--pairs", "6", "--checks", "0.3")


@contextmanager
def served(run, *options):
    """A server on `run`: its process and address. It is ended with Ctrl-C where it still lives."""
    command = [sys.executable, "-c", COMMAND, str(run), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # Should it neither begin nor end: its output does then.
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"open (http://\S+)", line):
                break
        else:
            pytest.fail("".join(said))
        watchdog.cancel()
        process.address = found[1]
        yield process
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.rest = process.communicate(timeout=20)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    pytest.importorskip("gradio", reason="gradio is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """Opens pages, each in a browser of its own."""
    opened = []

    def open_tab(address, **options):
        opened.append(Tab(browser, address, **options))
        return opened[-1]

    yield open_tab
    for each in opened:
        each.page.context.close()


class Tab:
    """A page, and what a rater does with it."""

    def __init__(self, browser, address, **options):
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(20_000)
        self.seen, self.replies, self.troubles = [], [], []
        self.page.on("request", lambda request: self.seen.append(request.url))
        self.page.on("requestfailed", lambda request: self.troubles.append(request.url))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("response", self._keep)
        self.page.goto(address)

    def _keep(self, response):
        if "/gradio_api/run/" in response.url or response.url.endswith(("/config", "/")):
            self.replies.append(response)

    def begin(self, code, consent=True):
        self.page.locator("#people-code").locator("input, textarea").fill(code)
        self.page.locator("#people-consent input").set_checked(consent)
        self.page.get_by_role("button", name="Begin").click()

    def progress(self, text):
        self.page.wait_for_function(
            "text => document.querySelector('.progress span')?.textContent === text"
            " && document.getElementById('people-first').getAttribute('aria-disabled') === 'false'",
            arg=text,
        )

    def press(self, key, then):
        self.page.keyboard.press(key)
        self.progress(then)

    def click(self, name, then=None):
        self.page.locator(f"#people-{name}").click()
        if then:
            self.progress(then)

    def notice(self, start):
        self.page.locator(".notice:visible", has_text=start).wait_for()


def slow_double_click(tab, name):
    """A double click whose second half comes when the next pair is there already."""
    box = tab.page.locator(f"#people-{name}").bounding_box()
    n = tab.page.locator(".state").get_attribute("data-n")
    tab.page.mouse.move(box["x"] + 20, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.up()
    tab.page.wait_for_function("n => document.querySelector('.state').dataset.n !== n", arg=n)
    tab.page.wait_for_timeout(350)
    tab.page.mouse.down(click_count=2)
    tab.page.mouse.up(click_count=2)
    tab.page.wait_for_timeout(300)


def choices(run, code):
    return [given.choice for given in read_logs(run)[code].given]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("pages") / "run", size=(96, 64))


@pytest.fixture(scope="module")
def server(run):
    with served(run, *OPTIONS, "--port", "0") as process:
        yield process
    assert process.rest.endswith("Stopped. Every answer is kept.\n")
    assert "Traceback" not in process.rest


def test_two_raters_at_the_same_time(tab, server, run):
    one, two = tab(server.address), tab(server.address)
    one.begin("a1", consent=False)
    one.notice("Please tick the box first")
    for wrong, why in (("ada@example.org", "That looks like an e-mail"), ("b9", "This study has no rater")):
        two.begin(wrong)
        two.notice(why)
    assert not {"a1", "a2", "b9"} & set(read_logs(run))
    one.begin("a1")
    two.begin("A2")
    for each in (one, two):
        each.progress("1 of 8")
    one.press("1", "2 of 8")
    two.click("second", "2 of 8")
    one.press("2", "3 of 8")
    two.press("t", "3 of 8")
    one.press("t", "4 of 8")
    one.press("u", "3 of 8")
    one.click("undo", "2 of 8")
    assert (choices(run, "a1"), choices(run, "a2")) == (["first"], ["second", "tie"])
    one.page.locator("#people-tie").dblclick()
    one.progress("3 of 8")
    one.page.wait_for_timeout(400)
    one.progress("3 of 8")
    assert choices(run, "a1") == ["first", "tie"]
    one.click("undo", "2 of 8")
    slow_double_click(one, "tie")
    one.progress("3 of 8")
    assert choices(run, "a1") == ["first", "tie"]
    one.page.reload()
    one.progress("3 of 8")
    for number in range(4, 9):
        one.press("2", f"{number} of 8")
    one.page.keyboard.press("1")
    one.page.get_by_role("heading", name="Thank you!").wait_for()
    assert choices(run, "a1") == ["first", "tie", *["second"] * 5, "first"]
    one.page.reload()
    one.page.get_by_role("heading", name="Thank you!").wait_for()
    one.page.get_by_role("button", name="Undo the last answer").click()
    one.progress("8 of 8")
    one.page.keyboard.press("1")
    one.page.get_by_role("heading", name="Thank you!").wait_for()
    one.press("u", "8 of 8")
    for number in (7, 6):
        one.press("u", f"{number} of 8")
    # Held down for longer than two items take.
    one.page.locator("#people-tie").focus()
    for _ in range(40):
        one.page.keyboard.down("Enter")
        one.page.wait_for_timeout(25)
    one.page.keyboard.up("Enter")
    one.progress("7 of 8")
    assert choices(run, "a2") == ["second", "tie"]
    assert not one.troubles + two.troubles
    hosts = {url.split("/")[2] for url in one.seen + two.seen if not url.startswith(("data:", "blob:"))}
    assert hosts == {server.address.split("/")[2]}
    names = {path.name for path in folder_of(run).iterdir()}
    assert names <= {".lock", "study.json", *(f"a{number}.jsonl" for number in range(1, 6))}


def test_nothing_tells_which_image_is_which(tab, server, run):
    rater = tab(server.address)
    rater.begin("a3")
    rater.progress("1 of 8")
    rater.press("t", "2 of 8")
    items = read_logs(run)["a3"].items
    prompt = next(prompt for prompt in read_prompts(run) if prompt.prompt_id == items[1].prompt_id)
    assert rater.page.locator("blockquote").inner_text() == prompt.text
    assert "<b>${1 + 1}</b> {{value}}" in prompt.text
    secrets = {image_id[:10] for item in items for image_id in item.shown} | {item.prompt_id for item in items}
    secrets |= {
        "painter",
        "original",
        "wide_spectrum",
        "rival",
        "identity",
        "pair-",
        "kind",
        str(run),
        "expected",
        "check_",
    }
    told = [reply.text() for reply in rater.replies if "/run/" in reply.url] + [
        rater.page.locator("#people-pair").inner_html()
    ]
    told += [url for url in rater.seen if "/picture/" in url]
    assert len(told) >= 6
    assert not [(secret, text) for text in told for secret in secrets if secret in text]
    pictures = [url for url in rater.seen if "/picture/" in url]
    assert all(re.fullmatch(r".*/picture/[0-9a-f]{32}\.png", url) for url in pictures)
    # Both of the first item, both of the second, and both of the third, which are fetched ahead; none twice.
    assert len(pictures) == len(set(pictures)) == 6
    sizes = [box["width"] for box in (image.bounding_box() for image in rater.page.locator(".pictures img").all())]
    assert sizes[0] == sizes[1]
    for path in ("/config", "/"):
        text = rater.page.request.get(server.address.rstrip("/") + path).text()
        assert not [secret for secret in secrets - {"original", "kind", "expected"} if secret in text]
    assert json.loads(rater.page.request.get(server.address + "gradio_api/info").text()) == {
        "named_endpoints": {},
        "unnamed_endpoints": {},
    }


def test_two_tabs_of_one_rater_and_the_next_rater_at_the_same_screen(tab, server, run):
    rater = tab(server.address)
    rater.begin("a4")
    rater.progress("1 of 8")
    twin = tab(server.address)
    twin.begin("a4")
    twin.progress("1 of 8")
    twin.press("1", "2 of 8")
    rater.press("2", "2 of 8")
    rater.notice("This page was out of date")
    assert choices(run, "a4") == ["first"]
    rater.page.get_by_role("button", name="Use another code").click()
    rater.page.locator("#people-welcome").wait_for()
    assert not rater.page.locator("#people-consent input").is_checked()
    rater.page.reload()
    rater.page.locator("#people-welcome").wait_for()


def test_images_stand_side_by_side_or_one_above_the_other(tab, server):
    for width, is_wide in ((1280, True), (390, False)):
        rater = tab(server.address, viewport={"width": width, "height": 800})
        rater.begin("a5")
        rater.progress("1 of 8")
        first, second = (image.bounding_box() for image in rater.page.locator(".pictures img").all())
        assert (first["width"], first["height"]) == (second["width"], second["height"])
        assert (first["y"] == second["y"]) == is_wide
        assert (first["x"] == second["x"]) != is_wide
        assert rater.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_killed_server_loses_nothing_and_an_open_page_goes_on(tab, tmp_path):
    run = made_run(tmp_path / "run")
    with served(run, *OPTIONS, "--port", "0") as first:
        rater = tab(first.address)
        rater.begin("a1")
        rater.progress("1 of 8")
        rater.press("1", "2 of 8")
        rater.press("t", "3 of 8")
        rater.page.keyboard.press("2")
        # Killed as soon as the answer is in the file, whether or not the page has heard of it.
        deadline = time.monotonic() + 20
        while read_log(folder_of(run) / "a1.jsonl").n < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    assert choices(run, "a1") == ["first", "tie", "second"]
    port = first.address.rstrip("/").rpartition(":")[2]
    with served(run, "--port", port):
        # The page is either at item 4 already, or still at 3, where a second try is told that it came too late.
        for _ in range(100):
            rater.page.keyboard.press("1")
            rater.page.wait_for_timeout(200)
            if len(choices(run, "a1")) > 3:
                break
        rater.progress("5 of 8")
        rater.page.reload()
        rater.progress("5 of 8")
        assert choices(run, "a1") == ["first", "tie", "second", "first"]
