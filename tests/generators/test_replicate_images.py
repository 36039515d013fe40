import pytest
from PIL.Image import Image

from tests.generators.apis import BLOCKED, KEY, ask, prompt, quick
from tests.image_api_server import Answer, Prediction, data_url, picture, serving
from widespectrum.errors import InputError
from widespectrum.generators.noise import noise_seed
from widespectrum.generators.replicate_images import ReplicateImages
from widespectrum.protocols import Failure, Refusal

SEEDREAM, QWEN = "bytedance/seedream-4", "qwen/qwen-image"
GOOD = Prediction(files=[picture()])


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quick(monkeypatch)


def opened(server, model=QWEN, **options):
    return ReplicateImages(model=model, base_url=server.url, **options)


def test_what_qwen_image_is_sent():
    with serving([GOOD]) as server:
        generator = opened(server)
        generator.generate([prompt(0), prompt(0, "wide_spectrum"), prompt(1)], seeds=[5, 5, 5])
        inputs = [request.body["input"] for request in server.requests]
        by_text = {given.pop("prompt"): given for given in inputs}
        original, spectrum, other = (by_text[each.text] for each in (prompt(0), prompt(0, "wide_spectrum"), prompt(1)))
        assert original == spectrum
        assert original.pop("seed") == noise_seed(5, prompt(0).pair_id) % 2**31 == generator.noise_seed(prompt(0), 5)
        assert other.pop("seed") == generator.noise_seed(prompt(1), 5) != generator.noise_seed(prompt(0), 5)
        assert original == {
            "num_inference_steps": 50,
            "guidance": 4,
            "enhance_prompt": False,
            "go_fast": True,
            "aspect_ratio": "1:1",
            "output_format": "png",
        }
        assert {request.path for request in server.requests} == {"/v1/models/qwen/qwen-image/predictions"}


def test_what_seedream_is_sent():
    with serving([GOOD]) as server:
        generator = opened(server, SEEDREAM)
        ask(generator)
        assert server.requests[0].body == {
            "input": {
                "prompt": prompt().text,
                "size": "1K",
                "aspect_ratio": "1:1",
                "sequential_image_generation": "disabled",
                "max_images": 1,
                "enhance_prompt": False,
            }
        }
        assert not hasattr(generator, "noise_seed")
        assert generator.spec.params["enhance_prompt"] is False


def test_the_file_is_fetched_without_the_token():
    with serving([Prediction(files=[picture((1, 2, 3)), picture()], polls=2)]) as server:
        generator = opened(server)
        assert ask(generator)[0].getpixel((0, 0)) == (1, 2, 3)
        polls, files = server.others[:2], server.others[2:]
        assert [request.path for request in polls] == ["/v1/predictions/p0"] * 2
        assert all(request.headers["Authorization"] == f"Bearer {KEY}" for request in polls)
        assert [request.path for request in files] == ["/files/p0/0"]
        assert KEY not in str(files[0].headers)
        (call,) = generator.take_calls()
        assert (call.request_id, call.model, call.code) == ("p0", "qwen/qwen-image:hidden", 201)


@pytest.mark.parametrize("output", [data_url(picture()), [data_url(picture())]])
def test_an_output_that_is_the_image_itself(output):
    with serving([Prediction(output=output)]) as server:
        assert isinstance(ask(opened(server))[0], Image)


TROUBLE = {
    "429": Answer({"detail": "Request was throttled. Your rate limit resets in ~0s."}, 429),
    "500": Answer("oops", 500),
    "503": Answer({"detail": "busy"}, 503, {"Retry-After": "0.01"}),
    "no json": Answer("<html>"),
    "cut": Answer("x" * 4000, cut=True),
    "slow": Answer("", delay=2),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_with_asking_does_not_pay_for_another_image(trouble, monkeypatch):
    monkeypatch.setattr("widespectrum.generators.replicate_images._LONGEST_REQUEST", 0.5)
    with serving([GOOD], [TROUBLE[trouble]] * 2) as server:
        generator = opened(server)
        assert isinstance(ask(generator)[0], Image)
        assert len(server.requests) == len(generator.take_calls()) == 1
        assert len(server.others) == 4


@pytest.mark.parametrize("trouble", [TROUBLE["500"], Answer(picture()[:40]), Answer(picture(), cut=True)])
def test_trouble_with_the_file_does_not_pay_for_another_image(trouble):
    with serving([Prediction(files=[picture()], polls=0)], [trouble] * 2) as server:
        generator = opened(server)
        assert isinstance(ask(generator)[0], Image)
        assert len(server.requests) == 1
        assert [request.path for request in server.others] == ["/files/p0/0"] * 3


def test_a_prediction_that_takes_too_long_is_canceled_and_made_again():
    answers = [Prediction(polls=10**6), GOOD]
    with serving(answers) as server:
        generator = opened(server, timeout=0.4)
        assert isinstance(ask(generator)[0], Image)
        assert server.canceled == ["p0"]
        assert [call.detail for call in generator.take_calls()] == ["no image in time", ""]


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        (Prediction(status="failed", error=BLOCKED), BLOCKED),
        (Prediction(status="failed", error="NSFW content detected. Try another prompt."), "NSFW content detected"),
        (Prediction(output=[], logs="Using seed: 1\nNSFW content detected in image 0\n"), "NSFW content detected"),
        (Answer({"title": "Invalid", "detail": "The prompt was flagged as sensitive", "status": 422}, 422), "The prom"),
    ],
)
def test_refusals(prediction, words):
    with serving([prediction]) as server:
        (answer,) = ask(opened(server))
        assert isinstance(answer, Refusal)
        assert answer.reason.startswith(words)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("prediction", "match"),
    [
        (Prediction(status="failed", error="CUDA out of memory"), "the prediction failed .*: CUDA out of memory"),
        (Prediction(status="canceled"), "the prediction canceled without an image: no reason given"),
        (Prediction(output=[]), "the prediction succeeded without an image"),
        (Prediction(output=None), "the prediction succeeded without an image"),
        (Prediction(output=[{"file": 1}]), "the prediction succeeded without an image"),
        (Prediction(output="http://example.org/a.png"), "is said to be at http://example.org/a.png, expected https"),
        (Prediction(output="file:///etc/passwd"), "expected https://"),
        (Prediction(files=[b"no image"]), "cannot be decoded: expected PNG, JPEG, WEBP"),
    ],
)
def test_predictions_without_an_image_are_made_again(prediction, match):
    with serving([prediction]) as server:
        generator = opened(server, attempts=2)
        (answer,) = ask(generator)
        assert isinstance(answer, Failure)
        assert [call.status for call in generator.take_calls()] == ["failed"] * 2
        with pytest.raises(AssertionError, match=match):
            raise AssertionError(answer.reason)
    with serving([prediction, GOOD]) as server:
        assert isinstance(ask(opened(server))[0], Image)


def test_addresses_of_this_machine_are_for_servers_of_this_machine(monkeypatch):
    with serving([GOOD]) as server:
        generator = opened(server, attempts=1)
        generator.open()
        generator.base_url = "https://api.replicate.com"
        (answer,) = ask(generator)
        assert "expected https://" in answer.reason
        assert not any(request.path.startswith("/files") for request in server.others)


def test_a_file_that_is_too_large_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr("widespectrum.generators.api_pictures._MOST_BYTES", 20)
    with serving([GOOD]) as server:
        (answer,) = ask(opened(server, attempts=1))
        assert "has more than 20 bytes" in answer.reason


def test_a_redirect_leads_nowhere_else():
    moved = Answer("", 302, {"Location": "ftp://example.org/a.png"})
    away = Answer("", 302, {"Location": "http://example.org/a.png"})
    for trouble in (moved, away):
        with serving([Prediction(files=[picture()], polls=0)], [trouble] * 9) as server:
            (answer,) = ask(opened(server, attempts=1))
            assert isinstance(answer, Failure)
            # And not that nobody answers there.
            assert f"is said to be at {trouble.headers['Location']}, expected https://" in answer.reason


def test_a_model_is_owner_and_name():
    with pytest.raises(InputError, match="model is 'seedream', expected owner/name"):
        ReplicateImages(model="seedream")


def test_the_base_url_with_and_without_its_version():
    with serving([GOOD]) as server:
        assert isinstance(ask(ReplicateImages(model=QWEN, base_url=f"{server.url}/v1/"))[0], Image)
