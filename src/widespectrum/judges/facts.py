"""What is known of each judge: `widespectrum models show NAME`."""

from __future__ import annotations

from widespectrum.option_table import about, option_lines, shown, wrapped
from widespectrum.registry import imported, lookup, options_of
from widespectrum.types import DIMENSIONS

from . import JUDGES

__all__ = ["MEANINGS", "describe"]

MEANINGS: dict[str, str] = {
    "reward_model": "the reward model whose scores decide; it must be in the run",
    "judges": "the labels of two or more judges of the run, with ; between them",
    "model": "the name of the model, as the server knows it",
    "base_url": "where the server is; it usually ends in /v1. The key is read from OPENAI_API_KEY",
    "temperature": "how freely it answers; 0 takes the likeliest answer, default leaves it to the server",
    "max_side": "no side of an image is sent longer than this, in pixels",
    "max_pixels": "an image of more pixels is made smaller, its aspect ratio kept",
    "attempts": "how often a request is tried",
    "timeout": "seconds until a request is given up",
    "concurrency": "requests at a time",
    "input_price": "US dollars for a million tokens that are sent",
    "output_price": "US dollars for a million tokens that come back",
    "journal": "the file that keeps requests and replies; in a run it lies in journals/",
    "checkpoint": "a local folder (or file) with the weights instead of the Hub's",
    "tokenizer": "a local folder with the tokenizer",
    "adapter": "the folder of the LoRA that `widespectrum train-judge` writes, or a merged model",
    "base": "the folder or Hub repository of the base model; by default the one that the adapter names",
    "repo": "a model on the Hub: org/repo[@revision]",
    "device": "auto, cpu, cuda, cuda:1 ...",
    "dtype": "float32, bfloat16 or float16",
    "batch_size": "questions that are computed together",
}
"""What an option means, for every option of every judge."""


def describe(name: str) -> str:
    """What the judge `name` is and takes, as text for the terminal. UnknownNameError for a name in no table."""
    entry = lookup("judge", JUDGES, name)
    family = imported(entry)
    found = {
        "asked about": _asked(family.dimensions),
        "needs": f'pip install "widespectrum[{entry.extra}]"' if entry.extra else "",
    }
    lines = wrapped([f"{name}: {entry.summary}", *(f"  {title}: {text}" for title, text in found.items() if text)])
    lines += ["", *wrapped([f"  {each}" for each in about(family, "bind", "ModelError")])]
    options = options_of(entry)
    lines += ["", "options (NAME[option=value,...])" if options else "no options"]
    return "\n".join([*lines, *(line for each, default in options.items() for line in _option(each, shown(default)))])


def _asked(dimensions: tuple[str, ...]) -> str:
    words = {"overall": "which of two images fits the prompt better"}
    rated = [each for each in dimensions if each in DIMENSIONS]
    named = [words.get(each, each) for each in dimensions if each not in rated]
    return ", ".join([*named, *(["the eleven dimensions"] if len(rated) == len(DIMENSIONS) else rated)])


def _option(option: str, default: str) -> list[str]:
    return option_lines(option, default, MEANINGS[option])
