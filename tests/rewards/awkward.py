"""Images and prompts that are easily read in another way than the official code reads them."""

import io

import numpy as np
import PIL.Image

PROMPTS = [
    "",
    "  \t ",
    "A dull, gray photograph of a man's hand; blurred and underexposed!",
    " ".join(["dog"] * 75),
    " ".join(["dog"] * 76),
    "word " * 90 + "end",
    "a café, naïve Ünïcode, ﬁne, Straße, ΑΣ İ, 中文字, 日本語 😀👍🏽 e\u0301 ½ ٣ \u200bzero",
    "cats &amp; dogs &amp;lt;b&amp;gt; &eacute;",
    "donâ€™t schÃ¶n",
    "a <|startoftext|> b <|endoftext|> c",
    "a <start_of_text> b <end_of_text> c",
    "<|Reward|> [SEP] <|image_pad|> \x00 \x1f",
]


def noise(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Colored clouds with grain."""
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (6, 6, 4), dtype=np.uint8)).resize((width, height))
    values = np.asarray(small, dtype=float)[..., :channels] + rng.normal(0, 12, (height, width, channels))
    return np.clip(values, 0, 255).astype(np.uint8).squeeze(-1 if channels == 1 else ())


def _turned() -> PIL.Image.Image:
    image, file = PIL.Image.fromarray(noise(200, 330, 3, 9)), io.BytesIO()
    exif = image.getexif()
    exif[274] = 6
    image.save(file, "png", exif=exif)
    return PIL.Image.open(file)


IMAGES = {
    "gray": PIL.Image.fromarray(noise(300, 260, 1, 0)),
    "gray and alpha": PIL.Image.fromarray(noise(256, 256, 4, 1)).convert("LA"),
    "palette": PIL.Image.fromarray(noise(240, 320, 3, 2)).quantize(32),
    "alpha": PIL.Image.fromarray(noise(280, 301, 4, 3)),
    "7 x 5": PIL.Image.fromarray(np.random.default_rng(4).integers(0, 256, (5, 7, 3), dtype=np.uint8)),
    "1600 x 90": PIL.Image.fromarray(noise(90, 1600, 3, 5)),
    "60 x 700": PIL.Image.fromarray(noise(700, 60, 3, 6)),
    "224 x 224": PIL.Image.fromarray(noise(224, 224, 3, 7)),
    "224 x 150": PIL.Image.fromarray(noise(150, 224, 3, 8)),
    "turned": _turned(),
    "fine": PIL.Image.fromarray(np.random.default_rng(10).integers(0, 256, (900, 900, 3), dtype=np.uint8)),
}
