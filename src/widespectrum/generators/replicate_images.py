"""Models that Replicate runs: a prediction is made, waited for, and its file is fetched."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from PIL.Image import Image

from widespectrum.errors import InputError
from widespectrum.protocols import Refusal
from widespectrum.types import Parameter, Prompt

from .api import ApiGenerator, backoff
from .api_deadline import ends_within
from .api_pictures import from_url
from .api_prices import list_price
from .api_replies import CallError, Reply, looks_refused, one_line, read_error, refusal
from .noise import noise_seed

__all__ = ["ReplicateImages"]

_HOME = "https://api.replicate.com"
_DONE = ("succeeded", "failed", "canceled", "aborted")
_VARIABLE = "REPLICATE_API_TOKEN"

_INPUTS: dict[str, dict[str, Parameter]] = {
    # The models would else take 16:9, or rewrite the prompt.
    "bytedance/seedream-4": {
        "size": "1K",
        "aspect_ratio": "1:1",
        "sequential_image_generation": "disabled",
        "max_images": 1,
        "enhance_prompt": False,
    },
    "qwen/qwen-image": {
        "num_inference_steps": 50,
        "guidance": 4,
        "enhance_prompt": False,
        "go_fast": True,
        "aspect_ratio": "1:1",
        "output_format": "png",
    },
}
_SEEDS: dict[str, int] = {"qwen/qwen-image": 2**31}
"""Models that take a seed, and how many there are."""

_POLLS = 8
"""So many times in a row it may fail to ask whether a prediction is done."""
_FETCHES = 3
_LONGEST_REQUEST = 30.0


class _StatusError(Exception):
    """A response of 400 or more, raised before the SDK tries again by itself or drops the headers."""

    def __init__(self, code: int, body: str, headers: Mapping[str, str]) -> None:
        super().__init__(code)
        self.code, self.body, self.headers = code, body, headers


def _transport(timeout: float) -> Any:
    import httpx

    limits = httpx.Timeout(timeout).as_dict()

    class Transport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            # The SDK makes predictions without any limit.
            request.extensions = {**request.extensions, "timeout": limits}
            response = super().handle_request(request)
            if response.status_code >= 400:
                response.read()
                raise _StatusError(response.status_code, response.text, response.headers)
            return response

    return Transport()


class ReplicateImages(ApiGenerator):
    """A model at Replicate, `owner/name`; what it is asked for beside the prompt is fixed for the models known here.

    The key is REPLICATE_API_TOKEN. `timeout` is for a whole prediction, from the request to its end; one that takes
    longer is canceled and tried again. One prediction is one call: asking whether it is done, and fetching its file,
    cost nothing and are tried again by themselves. A seed is sent where the model takes one.
    """

    adapter = "replicate-images"
    packages = ("replicate", "httpx")

    def __init__(
        self,
        *,
        name: str = "",
        model: str,
        base_url: str = _HOME,
        concurrency: int = 4,
        attempts: int = 5,
        timeout: float = 300,
        price: float | None = None,
    ) -> None:
        if not isinstance(model, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
            raise InputError(f"replicate-images: model is {model!r}, expected owner/name, such as qwen/qwen-image")
        self._inputs = _INPUTS.get(model, {})
        seeds = _SEEDS.get(model)
        if seeds is not None:
            self._seeds = seeds
            # Only then, since who has it is one that takes seeds.
            self.noise_seed: Callable[[Prompt, int], int] = self._noise_seed
        super().__init__(
            name=name,
            model=model,
            params={**self._inputs, **({} if seeds is None else {"seeds": seeds})},
            base_url=base_url,
            homes=("api.replicate.com",),
            concurrency=concurrency,
            attempts=attempts,
            timeout=timeout,
            price=price,
        )
        self.base_url = self.base_url.removesuffix("/v1")

    def _noise_seed(self, prompt: Prompt, seed: int) -> int:
        """The seed that is sent: that of the pair, in the range that the model takes."""
        return noise_seed(seed, prompt.pair_id) % self._seeds

    def _list_price(self) -> float | None:
        return list_price(self.model)

    def _variable(self) -> str:
        return _VARIABLE

    def _connect(self, key: str | None) -> tuple[Any, Callable[[], None]]:
        from replicate.client import Client

        limit = min(self.timeout, _LONGEST_REQUEST)
        hooks: Any = ends_within(limit)
        client = Client(api_token=key, base_url=self.base_url, transport=_transport(limit), event_hooks=hooks)
        # Made here and not by the first of several threads; the SDK has no other way to close it.
        return client, client._client.close

    def _exchange(self, prompt: Prompt, seed: int) -> Reply:
        given: dict[str, Any] = {"prompt": prompt.text, **self._inputs}
        if self.model in _SEEDS:
            given["seed"] = self._noise_seed(prompt, seed)
        deadline = time.monotonic() + self.timeout
        prediction = self._asked(self._client.models.predictions.create, self.model, given)
        if isinstance(prediction, Reply):
            return prediction
        facts: dict[str, Any] = {
            "code": 201,
            "request_id": str(prediction.id),
            "model": ":".join(filter(None, (prediction.model, prediction.version))),
        }
        try:
            return Reply(answer=self._answer_of(self._finished(prediction, deadline)), **facts)
        except CallError as error:
            # Whatever it was, it concerns this prediction: the next one may go well.
            raise CallError(error.reason, **facts) from None

    def _finished(self, prediction: Any, deadline: float) -> Any:
        """The prediction when it is done. Where asking for it fails, the prediction, which costs, goes on."""
        failures = 0
        pause: float = self._client.poll_interval
        while prediction.status not in _DONE:
            if time.monotonic() + pause > deadline:
                with contextlib.suppress(CallError):
                    self._asked(self._client.predictions.cancel, prediction.id)
                raise CallError("no image in time")
            time.sleep(pause)
            pause = self._client.poll_interval
            try:
                asked = self._asked(self._client.predictions.get, prediction.id)
                prediction, failures = prediction if isinstance(asked, Reply) else asked, 0
            except CallError as error:
                failures += 1
                if error.then != "retry" or failures == _POLLS:
                    raise
                pause = backoff(failures) if error.wait is None else error.wait
        return prediction

    def _answer_of(self, prediction: Any) -> Image | Refusal:
        """The image of a prediction that is done, or the refusal in its error."""
        said = self._hide(str(prediction.error or ""))
        if prediction.status == "succeeded":
            output = prediction.output
            url = output[0] if isinstance(output, list) and output else output
            if isinstance(url, str) and url:
                return self._fetched(self._hide(url))
            # Some models leave out what their filter found, and say so in the log alone.
            said = next(
                (line for line in self._hide(str(prediction.logs or "")).splitlines() if looks_refused(line)), ""
            )
        if looks_refused(said):
            return refusal(said)
        raise CallError(f"the prediction {prediction.status} without an image: {one_line(said) or 'no reason given'}")

    def _fetched(self, url: str) -> Image:
        for attempt in range(1, _FETCHES):
            with contextlib.suppress(CallError):
                return from_url(url, self.base_url, self.timeout)
            time.sleep(backoff(attempt))
        return from_url(url, self.base_url, self.timeout)

    def _asked(self, send: Callable[..., Any], *arguments: object) -> Any:
        """What a call of the SDK brings; a Reply where the vendor refused. CallError where nothing came."""
        import httpx

        try:
            return send(*arguments)
        except _StatusError as error:
            request_id = error.headers.get("x-request-id") or ""
            outcome = read_error(
                error.code, self._hide(error.body), error.headers, variable=_VARIABLE, request_id=request_id
            )
            if isinstance(outcome, Reply):
                return outcome
            raise outcome from None
        except httpx.HTTPError as error:
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            late = isinstance(error, httpx.TimeoutException)
            reason = "no reply in time" if late else f"no connection: {str(error) or type(error).__name__}"
            raise CallError(one_line(reason), billed=not unsent) from None
        # What the SDK raises for a body that is not a prediction.
        except (ValueError, TypeError, AttributeError) as error:
            raise CallError(f"no prediction came ({type(error).__name__})", code=200) from None
