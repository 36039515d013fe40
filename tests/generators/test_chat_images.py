import pytest
from PIL.Image import Image

from tests.generators.apis import ask, prompt, quick
from tests.image_api_server import (
    Answer,
    chat,
    chat_image,
    data_url,
    encoded,
    openrouter_error,
    picture,
    serving,
)
from widespectrum.errors import InputError, ModelError
from widespectrum.generators.chat_images import ChatImages
from widespectrum.protocols import Refusal

MODEL = "google/gemini-2.5-flash-image"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quick(monkeypatch)


def opened(server, **options):
    return ChatImages(model=MODEL, base_url=server.openai, **options)


def test_what_is_sent_is_the_same_for_both_prompts_but_for_the_prompt():
    with serving([chat_image()]) as server:
        generator = opened(server)
        generator.generate([prompt(0), prompt(0, "wide_spectrum")], seeds=[3, 3])
        first, second = (request.body for request in server.requests)
        texts = {body.pop("messages")[0]["content"] for body in (first, second)}
        assert texts == {prompt(0).text, prompt(0, "wide_spectrum").text}
        assert first == second == {"model": MODEL, "modalities": ["image", "text"], "usage": {"include": True}}
        assert server.requests[0].path == "/v1/chat/completions"
        assert not hasattr(generator, "noise_seed")


def test_id_model_and_cost_are_what_the_vendor_says():
    with serving([chat_image(cost=0.0412)]) as server:
        generator = opened(server)
        ask(generator)
        (call,) = generator.take_calls()
        assert (call.request_id, call.model, call.cost) == ("gen-1761234567-abc", MODEL, 0.0412)


@pytest.mark.parametrize("cost", ["0.1", True, -1, None])
def test_a_cost_that_is_none_is_unknown(cost):
    with serving([chat_image(cost=cost)]) as server:
        generator = opened(server)
        ask(generator)
        assert generator.take_calls()[0].cost is None


URL = data_url(picture())


@pytest.mark.parametrize(
    "message",
    [
        {"images": [{"type": "image_url", "image_url": {"url": URL}}], "content": "Here it is."},
        {"images": [{"image_url": URL}]},
        {"images": [URL]},
        {"content": [{"type": "text", "text": "Here."}, {"type": "image_url", "image_url": {"url": URL}}]},
        {"content": [{"inline_data": {"mime_type": "image/png", "data": encoded(picture())}}]},
        {"content": [{"text": "Here."}, {"inlineData": {"mimeType": "image/png", "data": encoded(picture())}}]},
        {"content": [{"type": "image", "source": {"type": "base64", "data": encoded(picture())}}]},
        {"content": URL},
        {"content": f"Here you are:\n\n![a cup]({URL})\n\nAnything else?"},
        {"content": [{"type": "text", "text": f"![]({URL})"}]},
        {"content": None, "images": [{"b64_json": encoded(picture())}]},
    ],
)
def test_every_form_in_which_servers_send_an_image(message):
    with serving([chat(message)]) as server:
        (image,) = ask(opened(server, attempts=1))
        assert image.getpixel((0, 0)) == (200, 30, 30)


def test_of_several_images_the_first_is_taken():
    with serving([chat_image(picture((1, 2, 3)), picture((4, 5, 6)))]) as server:
        assert ask(opened(server))[0].getpixel((0, 0)) == (1, 2, 3)


def test_an_image_that_is_only_linked_is_fetched_without_the_key():
    def answers(received):
        return chat({"content": f"![a cup]({server.url}/files/one/0)"})

    with serving(answers, trouble=[Answer(picture(), headers={"Content-Type": "image/png"})]) as server:
        assert isinstance(ask(opened(server))[0], Image)
        (fetched,) = server.others
        assert "Authorization" not in fetched.headers


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (chat({"content": "I can describe a cup: it is round."}), "I can describe a cup: it is round."),
        (chat({"content": "See [this page](https://example.org)."}), "See"),
        (chat({"content": [{"type": "text", "text": "No."}]}), "No."),
        (chat({"refusal": "I will not."}), "I will not."),
        (chat({}, "content_filter", "SAFETY"), "held back without a word (content_filter)"),
        (chat({}, "stop", "PROHIBITED_CONTENT"), "held back without a word (PROHIBITED_CONTENT)"),
        (chat({}, "SAFETY", None), "held back without a word (SAFETY)"),
        (chat({"content": None}, "stop", "IMAGE_SAFETY"), "held back without a word (IMAGE_SAFETY)"),
        (
            openrouter_error(403, "Your input was flagged", {"reasons": ["violence"], "flagged_input": "a cup"}),
            "Your input was flagged",
        ),
        (openrouter_error(400, "Request blocked: PROHIBITED_CONTENT"), "Request blocked: PROHIBITED_CONTENT"),
    ],
)
def test_refusals(answer, words):
    with serving([answer]) as server:
        generator = opened(server)
        (refused,) = ask(generator)
        assert isinstance(refused, Refusal)
        assert refused.reason.startswith(words)
        assert generator.take_calls()[0].status == "refused"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        chat({}),
        chat({"content": "  "}, "stop", "NO_IMAGE"),
        chat({"images": [{"image_url": {"url": "data:image/png;base64,"}}]}),
        chat({"images": [{"image_url": {"url": "data:image/png;base64,@@@@"}}]}),
        chat({"content": "data:image/png;base64,AAAA"}),
        chat({"images": [{"image_url": {"url": "http://example.org/a.png"}}]}),
        Answer({"choices": []}),
        Answer({"choices": [{"message": None}]}),
        Answer({"error": {"code": 502, "message": "Provider returned error"}}),
        Answer({"error": {"code": 429, "message": "Rate limited upstream"}}),
        Answer({"choices": [{"error": {"code": 502, "message": "x"}, "finish_reason": "error", "message": {}}]}),
    ],
)
def test_replies_with_nothing_in_them_are_tried_again(answer):
    with serving([answer, chat_image()]) as server:
        generator = opened(server)
        assert isinstance(ask(generator)[0], Image)
        assert [call.status for call in generator.take_calls()] == ["failed", "ok"]


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        (openrouter_error(400, "google/x is not a valid model ID"), InputError, "check the name of the model"),
        (openrouter_error(404, "No endpoints found for google/x."), InputError, "check the name of the model"),
        (openrouter_error(402, "Insufficient credits"), ModelError, "run again when the account has credit"),
        (
            Answer([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}], 400),
            InputError,
            "set OPENROUTER_API_KEY to a key",
        ),
        (Answer({"error": {"code": 401, "message": "User not found."}}), InputError, "set OPENROUTER_API_KEY"),
    ],
)
def test_what_concerns_every_prompt_stops(answer, kind, match):
    with serving([answer]) as server:
        with pytest.raises(kind, match=match):
            ask(opened(server))
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("base_url", "variable"),
    [
        ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "GEMINI_API_KEY"),
        ("https://gate.example.org/v1", "OPENAI_API_KEY"),
    ],
)
def test_the_key_goes_only_where_it_belongs(base_url, variable, monkeypatch):
    generator = ChatImages(model=MODEL, base_url=base_url)
    generator.open()
    monkeypatch.delenv(variable)
    with pytest.raises(InputError, match=f"set {variable} in the environment"):
        ChatImages(model=MODEL, base_url=base_url).open()
    assert ("host" in generator.spec.params) == (variable == "OPENAI_API_KEY")


def test_google_is_asked_in_its_own_words(monkeypatch):
    with serving([chat_image()]) as server:
        generator = opened(server)
        monkeypatch.setattr("widespectrum.generators.chat_images._GOOGLE", "127.0.0.1")
        ask(generator)
        body = server.requests[0].body
        assert (body["model"], "usage" in body) == ("gemini-2.5-flash-image", False)
