"""What benchmarks/judging.py asks and whom: photographs of some size, and an endpoint that always needs as long."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


VERDICT = {"reason": "The second is blurred and dark, as was asked for.", "verdict": "second"}
SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "verdict": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}
RUN_FILE = """
[prompts]
set = "photographs"

[[generators]]
name = "identity"
"""
SIDE = 512
DIFFERENT = 16


def _encoded(image: Any, form: str) -> bytes:
    """As JPEG as judges are sent it, or as a PNG that is made fast."""
    buffer = BytesIO()
    image.save(buffer, form, **({"quality": 95, "subsampling": 0} if form == "JPEG" else {"compress_level": 1}))
    return buffer.getvalue()


def _photograph(seed: int, kilobytes: float) -> Any:
    """A picture whose JPEG as judges are sent it has about so many kB."""
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    low, high = 0.3, 4.0
    for _ in range(12):
        radius = (low + high) / 2
        image = noise.filter(ImageFilter.GaussianBlur(radius))
        low, high = (radius, high) if len(_encoded(image, "JPEG")) > kilobytes * 1000 else (low, radius)
    return image


def photographs(count: int, kilobytes: float) -> list[Any]:
    """So many pictures, no two the same, though most look alike."""
    drawn = [_photograph(seed, kilobytes) for seed in range(min(count, DIFFERENT))]
    images = [drawn[number % DIFFERENT].copy() for number in range(count)]
    for number, image in enumerate(images):
        image.putpixel((0, 0), (number % 256, number // 256 % 256, number // 65536))
    return images


def made_run(run: Path, pairs: int, kilobytes: float, stored: str) -> Path:
    """A run folder with so many pairs of pictures in the format `stored`."""
    from widespectrum import runs, store
    from widespectrum.config import parse_run_file
    from widespectrum.types import ImageRecord, Prompt

    texts = {"original": "a bus on road {}", "wide_spectrum": "a bus on road {}, blurred and drowned in gloom"}
    prompts = [
        Prompt(
            prompt_id="",
            text=text.format(number),
            pair_id=f"pair-{number}",
            role=role,
            dimensions=("clarity", "color brightness") if role == "wide_spectrum" else (),
        )
        for number in range(pairs)
        for role, text in texts.items()
    ]
    records, payload = [], []
    for prompt, image in zip(prompts, photographs(len(prompts), kilobytes), strict=True):
        content = _encoded(image, stored)
        image_id = hashlib.sha256(content).hexdigest()
        facts = {"generator": "painter", "seed": 0, "status": "ok", "detail": "", "width": SIDE, "height": SIDE}
        records.append(ImageRecord(image_id=image_id, prompt_id=prompt.prompt_id, path="", **facts))
        payload.append({"bytes": content, "path": None})
    with runs.locked(run):
        runs.open_run(run, parse_run_file(RUN_FILE), datasets={}, prompts=prompts)
        store.append(run, "images", records, payload)
    return run


class Slow(asyncio.Protocol):
    """Reads a request whole, and answers it `delay` seconds later; connections stay open."""

    def __init__(self, delay: float, content: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self.delay, self.reply = delay, head.encode() + content
        self.head, self.missing = b"", 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            self.head += data
            head, end, body = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.head, self.missing, data = b"", int(LENGTH.search(head)[1]), body
        self.missing -= len(data)
        if not self.missing:
            asyncio.get_running_loop().call_later(self.delay, self.transport.write, self.reply)


def completion(reply: dict[str, Any]) -> bytes:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": json.dumps(reply), "refusal": None}
    usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "chatcmpl-1", "model": "made", "choices": [choice], "usage": usage}).encode()


def serve(delay: float, reply: dict[str, Any], port: Any) -> None:
    """Serve in this process until it is ended; the port goes into the queue `port`."""

    async def run() -> None:
        content = completion(reply)
        server = await asyncio.get_running_loop().create_server(lambda: Slow(delay, content), "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())
