import base64

import pytest
from PIL.Image import Image

from tests.generators.apis import ask, prompt, quick
from tests.image_api_server import Answer, openai_blocked, openai_error, openai_image, picture, serving
from widespectrum.errors import InputError, ModelError
from widespectrum.generators.openai_images import OpenAIImages
from widespectrum.protocols import Failure, Refusal


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quick(monkeypatch)


def test_what_is_sent_is_the_same_for_both_prompts_but_for_the_prompt():
    with serving([openai_image()]) as server:
        generator = OpenAIImages(model="gpt-image-1.5", base_url=server.openai)
        generator.generate([prompt(0), prompt(0, "wide_spectrum")], seeds=[3, 3])
        first, second = (request.body for request in server.requests)
        texts = {first.pop("prompt"), second.pop("prompt")}
        assert texts == {prompt(0).text, prompt(0, "wide_spectrum").text}
        assert first == second == {"model": "gpt-image-1.5", "n": 1, "quality": "high", "size": "1024x1024"}
        assert {request.path for request in server.requests} == {"/v1/images/generations"}
        assert not hasattr(generator, "noise_seed")
        assert {call.seed for call in generator.take_calls()} == {3}


def test_the_spec_holds_what_changes_the_image_and_nothing_else():
    spec = OpenAIImages(model="gpt-image-1-mini", quality="low", width=1536).spec
    assert str(spec).startswith("openai-images:gpt-image-1-mini@v1?")
    assert spec.params == {"model": "gpt-image-1-mini", "quality": "low", "size": "1536x1024"}
    same = OpenAIImages(model="gpt-image-1-mini", quality="low", width=1536, concurrency=9, attempts=2, price=1)
    assert same.spec == spec
    assert OpenAIImages(model="m", name="mine").spec.name == "mine"
    with_port = OpenAIImages(model="gpt-image-1.5", base_url="https://gate.example.org:8443/v1").spec
    assert with_port.params["host"] == "gate.example.org"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 512}, r"gpt-image-1.5 makes images of 1024x1024, 1024x1536, 1536x1024; got 512x1024: choose one"),
        ({"quality": "best"}, r"gpt-image-1.5 knows the qualities low, medium, high, auto; got 'best'"),
    ],
)
def test_sizes_and_qualities_that_the_model_does_not_have(options, match):
    with pytest.raises(InputError, match=match):
        OpenAIImages(model="gpt-image-1.5", **options)


@pytest.mark.parametrize(
    ("quality", "width", "price"), [("high", 1024, 0.133), ("low", 1536, 0.013), ("auto", 1024, None)]
)
def test_the_price_follows_size_and_quality(quality, width, price):
    assert OpenAIImages(model="gpt-image-1.5", quality=quality, width=width).price == price


def test_usage_in_tokens_is_not_turned_into_dollars():
    with serving([openai_image(headers={"X-Request-Id": "req_abc"})]) as server:
        generator = OpenAIImages(model="gpt-image-1.5", base_url=server.openai)
        ask(generator)
        (call,) = generator.take_calls()
        assert (call.cost, call.request_id, call.code) == (None, "req_abc", 200)


@pytest.mark.parametrize(
    "refused",
    [
        openai_blocked(),
        openai_error(400, "This request has been blocked by our content filters.", "content_policy_violation"),
        openai_error(400, "Your request was rejected as a result of our safety system.", None),
        openai_error(403, "The prompt was flagged.", "content_filter"),
    ],
)
def test_what_the_safety_system_rejects_is_a_refusal_in_its_words(refused):
    with serving([refused]) as server:
        generator = OpenAIImages(model="gpt-image-1.5", base_url=server.openai)
        (answer,) = ask(generator)
        assert answer == Refusal(refused.content["error"]["message"])
        (call,) = generator.take_calls()
        assert (call.status, call.code, call.cost) == ("refused", refused.status, 0.0)


@pytest.mark.parametrize(
    ("wrong", "kind", "match"),
    [
        (
            openai_error(400, "Invalid value: 'gpt-image-9'.", "invalid_value", param="model"),
            InputError,
            "check the name of the model",
        ),
        (openai_error(404, "The model does not exist.", "model_not_found"), InputError, "check the name of the model"),
        (
            openai_error(403, "Your organization must be verified to use the model.", None),
            InputError,
            "ask for access",
        ),
        (openai_error(400, "Billing hard limit has been reached.", "billing_hard_limit_reached"), ModelError, "credit"),
    ],
)
def test_what_concerns_every_prompt_is_said_in_one_sentence(wrong, kind, match):
    with serving([wrong]) as server, pytest.raises(kind, match=match) as caught:
        ask(OpenAIImages(model="gpt-image-1.5", base_url=server.openai))
    assert str(caught.value).startswith(f"gpt-image-1.5: {wrong.status}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"data": [{"b64_json": "!!!"}]},
        {"data": [{"b64_json": base64.b64encode(picture()).decode()[:-10] + "="}]},
        {"data": [{"b64_json": 7}]},
        {"data": [{"url": "https://example.org/1.png"}]},
        {"data": [None]},
        {"data": {}},
        {"data": None},
        {"data": [{"b64_json": base64.b64encode(b"<svg/>").decode()}]},
        {"error": {"message": "upstream", "code": "x"}},
        "[" * 100_000,
    ],
)
def test_bodies_without_an_image_are_tried_again(content):
    with serving([Answer(content), openai_image()]) as server:
        generator = OpenAIImages(model="gpt-image-1.5", base_url=server.openai)
        assert isinstance(ask(generator)[0], Image)
        first, _ = generator.take_calls()
        assert first.status == "failed"
        assert len(first.detail) < 500


def test_an_image_beyond_the_pixel_limit_is_not_decoded(monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    with serving([openai_image(picture(size=(100, 100)))]) as server:
        (answer,) = ask(OpenAIImages(model="gpt-image-1.5", base_url=server.openai, attempts=2))
    assert isinstance(answer, Failure)
    assert "more than 1,000 pixels" in answer.reason


def test_one_seed_per_prompt():
    generator = OpenAIImages(model="gpt-image-1.5", base_url="http://localhost:1")
    with pytest.raises(InputError, match="needs one seed per prompt; got 1 prompts, 0 seeds"):
        generator.generate([prompt()], seeds=[])
    assert generator.generate([], seeds=[]) == []
