"""The page and its JSON: they hold the figures, texts stay texts, nothing is loaded, and it can be used on a phone."""

import io
import json
import re
from base64 import b64decode
from pathlib import Path

import PIL.Image
import pytest
import typer
from typer.testing import CliRunner

from tests.judge_report.made_run import FIRST, FLIPS, HONEST, HOSTILE, REFUSED, bare_run, make_run, verdict
from tests.report_page import Page
from widespectrum import judge_report, store
from widespectrum.cli_judge_report import judge_report as verb
from widespectrum.errors import InputError
from widespectrum.judge_report.gallery import COMPARISONS, PER_COMPARISON, disagreements
from widespectrum.judge_report.material import read_material
from widespectrum.judge_report.matrix import confusions, matrix

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "run"
    make_run(folder)
    return folder


@pytest.fixture(scope="module")
def figures(run):
    return judge_report.read_figures(run)


@pytest.fixture(scope="module")
def page(run):
    return Page(judge_report.write(run))


@pytest.fixture(scope="module")
def numbers(page, run):
    return json.loads((run / "judges.json").read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_it_loads_nothing_and_runs_nothing_of_others(page):
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "embed", "base", "form")]
    assert all(attrs["src"].startswith("data:image/webp;base64,") for attrs in page.of("img"))
    assert all(attrs["href"].startswith("#") for attrs in page.of("a"))
    assert not re.search(r"https?://", re.sub(r"<title>.*?</title>", "", page.source))


def test_prompts_reasons_and_replies_are_shown_as_text(page):
    shown = " ".join(HOSTILE.split())
    for text in (f"honest says: {shown} (first)", REFUSED, json.dumps({"answer": 1, "said": HOSTILE})):
        assert text in page.text
    assert HOSTILE not in page.source
    assert all(attrs.get("alt") for attrs in page.of("img"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in page.of("a")} <= set(ids)


def test_the_top_says_what_to_beware_of(page):
    assert "4 judges and 2 raters said of 80 image pairs which of the two" in page.text
    assert f"{FIRST} changes its verdict with the order of showing on 100 % of its pairs" in page.text
    assert "resamples whole plain captions, of which there are 20" in page.text
    assert "No people have judged" not in page.text


def test_the_matrix_shows_every_figure_with_its_interval(page, figures):
    grid = matrix(figures)
    assert [label for label, _ in grid.rows] == grid.columns == list(figures.material.verdicts)
    for reference, cells in grid.rows:
        for label, cell in zip(grid.columns, cells, strict=True):
            if label == reference:
                assert cell.reason == "itself"
                continue
            values = figures.agreement[reference, label]
            assert float(cell.kappa.replace("−", "-")) == pytest.approx(values["quadratic_kappa"], abs=0.0005001)
            ends = [float(end) for end in re.findall(r"[\d.]+", cell.interval)]
            assert ends == pytest.approx(
                [abs(values[f"quadratic_kappa_ci_{end}"]) for end in ("low", "high")], abs=0.0005001
            )
            assert cell.detail[1] == f"base {values['majority_baseline']:.3f}, n {values['n_compared']}"
            assert f"{cell.kappa} " in page.text
            assert cell.interval in page.text
    marked = {(a, b) for a, row in grid.rows for b, cell in zip(grid.columns, row, strict=True) if cell.mark}
    members = {("majority", each) for each in (HONEST, FLIPS, FIRST)} | {("people", "human:k7"), ("people", "human:m2")}
    assert marked == members | {(b, a) for a, b in members}


def test_confusion_matrices_have_the_reference_down(figures):
    first = next(each for each in confusions(figures) if (each.reference, each.judge) == (HONEST, FIRST))
    honest = next(each for each in figures.judges if each.label == HONEST)
    assert [sum(counts) for _, counts in first.rows] == [80 - honest.ties - first.rows[2][1][1], honest.ties, 44]
    assert all(counts[0] == counts[2] == 0 for _, counts in first.rows)  # the judge across says nothing but tie


def test_cells_without_a_figure_say_why(tmp_path):
    keys = bare_run(tmp_path / "run")
    rows = [verdict(key, HONEST, order, 1) for key in keys[:4] for order in ("first", "second", "both")]
    rows += [verdict(key, FLIPS, order, 1) for key in keys[2:4] for order in ("first", "second", "both")]
    rows += [verdict(keys[9], FIRST, order, 1) for order in ("first", "second", "both")]
    store.append(tmp_path / "run", "verdicts", rows)
    text = Page(judge_report.write(tmp_path / "run")).text
    assert "κ undefined: both give the same verdict throughout 1.000 equal base 1.000, n 2" in text
    assert "no pair judged by both" in text
    assert "No two judges differ on any pair." in text
    assert "No people have judged" in text
    assert "Not finished: honest, flips, always-first did not answer all pairs." in text
    assert "No journals: no judge of this run was asked over an endpoint" in text


def test_a_single_judge_has_a_page_too(tmp_path):
    keys = bare_run(tmp_path / "run")
    rows = [verdict(keys[0], HONEST, order, 1) for order in ("first", "second", "both")]
    store.append(tmp_path / "run", "verdicts", rows)
    text = Page(judge_report.write(tmp_path / "run")).text
    assert "There is one judge alone: agreement needs another judge, or people" in text


def test_json_holds_the_same_figures(numbers, figures):
    pairs = {(each["reference"], each["judge"]): each for each in numbers["agreement"]}
    assert set(pairs) == set(figures.agreement)
    for key, values in figures.agreement.items():
        assert pairs[key]["quadratic_kappa"] == values["quadratic_kappa"]
        assert pairs[key]["confusion_matrix"] == values["confusion_matrix"]
    first = next(each for each in numbers["judges"] if each["label"] == FIRST)
    assert first["position_bias_rate"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert first["confidence"] is None
    assert first["spec"].startswith("vlm:vlm@v1?")
    flips = next(each for each in numbers["judges"] if each["label"] == FLIPS)
    assert flips["abstained"] == {REFUSED: 1}
    assert (numbers["pairs"], numbers["captions"], numbers["reference"]) == (80, 20, "people")
    (cost,) = numbers["costs"]
    assert (cost["requests"], cost["image_bytes"], cost["max_side"]) == (37, [40000, 43000, 46000], [1024])
    assert {(each["judge"], each["name"]) for each in numbers["by_generator"]} >= {(HONEST, "plain-generator")}


def test_the_gallery_is_drawn_among_the_disagreements_and_says_how_many_there_are(run, page):
    material = read_material(run)
    comparisons, total = disagreements(material)
    assert total == len(comparisons) <= COMPARISONS
    assert [each.judge for each in comparisons[:3]] == ["people"] * 3
    seen = set()
    for each in comparisons:
        one, other = material.verdicts[each.judge].both, material.verdicts[each.other].both
        distance = {pair.key: abs(a - b) for pair, a, b in zip(material.pairs, one, other, strict=True)}
        counts = [list(distance.values()).count(step) for step in (1, 0.5)]
        assert [each.opposite, each.apart] == counts
        wanted = 1 if each.opposite else 0.5
        drawn = [card.pair.key for card in (*each.cards, *each.above)]
        assert len(set(drawn)) == len(drawn) == min(PER_COMPARISON, counts[0] or counts[1])
        assert all(distance[key] == wanted for key in drawn)
        assert not {card.number for card in each.cards} & seen
        assert {card.number for card in each.above} <= seen
        seen |= {card.number for card in each.cards}
        assert f"{each.opposite} of {sum(d == d for d in distance.values())} pairs have opposite verdicts" in page.text
    assert comparisons == disagreements(material)[0]
    assert len(page.by_class("card")) == len(seen)


def test_a_card_shows_both_orders_and_replies_as_they_came(run):
    cards = [card for each in disagreements(read_material(run))[0] for card in each.cards]
    said = {each.judge: each for each in cards[0].said}
    assert [(part.shown, part.verdict) for part in said[FIRST].parts] == [("I_a first", "I_a"), ("I_o first", "I_o")]
    assert said[FIRST].verdict == "tie"
    assert [json.loads(text)["answer"] for _, text in said[FIRST].replies] == [1, 0]
    assert [part.shown for part in said[HONEST].parts] == ["I_a first", "I_o first"]  # for two reasons
    assert said[HONEST].confidence > 0.5
    assert [part.verdict for part in said["human:k7"].parts] == [said["human:k7"].verdict]
    image = PIL.Image.open(io.BytesIO(b64decode(cards[0].image_wide.partition(",")[2])))
    assert (image.format, image.size) == ("WEBP", (72, 54))


def test_what_is_the_same_in_both_orders_is_said_once(tmp_path):
    keys = bare_run(tmp_path / "run")
    rows = [verdict(keys[0], HONEST, order, 1, rationale="it is dark") for order in ("first", "second", "both")]
    rows += [verdict(keys[0], FLIPS, order, 0, rationale=order) for order in ("first", "second", "both")]
    store.append(tmp_path / "run", "verdicts", rows)
    ((only,), _) = disagreements(read_material(tmp_path / "run"))
    honest, flips = only.cards[0].said
    assert honest.parts == [("both orders", "I_a", "it is dark")]
    assert flips.parts == [("I_a first", "I_o", "first"), ("I_o first", "I_o", "second")]


def test_the_verb_prints_a_short_table(run):
    app = typer.Typer()
    app.command()(verb)
    result = CliRunner().invoke(app, [str(run), "--reference", HONEST])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["judge", "verdicts"]
    assert "kappa with honest" in lines[0]
    assert re.match(r"always-first +80 +0\.000 .* 1\.000 \[1\.000, 1\.000\] +0\.000 \[0\.000, 0\.000\]", lines[5])
    assert re.match(r"honest .* 0\.038$", lines[3])
    assert lines[-1].endswith(f"{run / 'judges.json'}")
    refused = CliRunner().invoke(app, [str(run), "--reference", "nobody"])
    assert isinstance(refused.exception, InputError)


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")
def test_it_fits_a_phone_follows_dark_mode_and_can_be_used_by_keyboard(page, run):
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    grounds, said = {}, []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        for scheme in ("light", "dark"):
            tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
            tab.on("console", lambda message: said.append(message.text))
            tab.on("request", lambda request: said.append(request.url[:40]) if request.url[:4] == "http" else None)
            tab.goto(f"file://{run / 'judges.html'}")
            tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            assert tab.evaluate("document.documentElement.scrollWidth") == 390
            grounds[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            tab.keyboard.press("Tab")
            assert tab.evaluate("document.activeElement.textContent") == "To the figures"
            tab.get_by_role("button", name="tie rate").press("Enter")
            assert tab.locator("#judges .estimates tbody th").first.inner_text() == "human:m2"
        browser.close()
    assert said == []
    assert grounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}
