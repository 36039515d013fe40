import json

import pytest

from tests.chat_server import serving
from widespectrum.errors import InputError
from widespectrum.prompts.rewriting import Request, TemplateRewriter, open_rewriter

CAPTION = "Two dogs are playing with a red ball in the park"
REQUEST = Request(pair_id="coco-1", caption=CAPTION, dimensions=("clarity", "emotion"))
PHRASES = {"clarity": "smeared by heavy motion blur", "emotion": "baring their teeth in fear"}
PROMPT = f"{CAPTION}, {PHRASES['clarity']} and {PHRASES['emotion']}"


def reply(prompt=PROMPT, phrases=PHRASES, negative="sharp, cheerful"):
    effects = [{"dimension": name, "phrase": phrase} for name, phrase in phrases.items()]
    return {"prompt": prompt, "effects": effects, "negative_prompt": negative}


def rewrite(server, journal, requests=(REQUEST,)):
    with open_rewriter(server.endpoint, journal) as rewriter:
        return list(rewriter.rewrite(requests))


def test_the_template_says_the_caption_and_one_sentence_per_effect():
    (made,) = TemplateRewriter(seed=0).rewrite([REQUEST])
    assert made.problems == ()
    assert made.prompt.startswith(f"{CAPTION}. ")
    assert set(made.phrases) == {"clarity", "emotion"}
    assert made.prompt == " ".join([f"{CAPTION}.", *made.phrases.values()])
    assert made.negative_prompt == "sharp, cheerful"


@pytest.mark.parametrize(
    ("caption", "sentence"),
    [
        ("two dogs in the park .", "Two dogs in the park."),
        ("Two dogs in the park..", "Two dogs in the park."),
        ("Two dogs in the park,", "Two dogs in the park."),
        ("Two dogs in the park!", "Two dogs in the park!"),
        ('Two dogs beside the words "keep off."', 'Two dogs beside the words "keep off."'),
    ],
)
def test_the_template_begins_with_a_whole_sentence(caption, sentence):
    request = Request(pair_id="p", caption=caption, dimensions=("clarity", "emotion"))
    (made,) = TemplateRewriter().rewrite([request])
    assert made.prompt == " ".join([sentence, *made.phrases.values()])
    assert made.problems == ()


def test_the_template_takes_short_sentences_for_a_long_caption():
    caption = "A man with a hat and a cane " * 5 + "walks"
    request = Request(pair_id="p", caption=caption, dimensions=("clarity", "emotion", "richness"))
    for seed in range(20):
        (made,) = TemplateRewriter(seed=seed).rewrite([request])
        assert len(made.prompt.split()) <= 69
        assert made.problems == ()


def test_a_chat_is_asked_in_the_words_of_the_request_and_its_reply_is_kept(tmp_path):
    with serving([reply()]) as server:
        (made,) = rewrite(server, tmp_path / "journal.jsonl")
    body = server.requests[0].body
    assert body["temperature"] == 0.1
    assert body["response_format"]["type"] == "json_schema"
    assert body["messages"][1]["content"].startswith(f"Caption: {CAPTION}\nEffects:\n- clarity: ")
    assert made.problems == ()
    assert (made.prompt, dict(made.phrases), made.negative_prompt) == (PROMPT, PHRASES, "sharp, cheerful")
    assert json.loads(made.reply) == reply()
    assert made.asked == body["messages"][1]["content"]
    entry = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[0])
    assert entry["request"]["messages"] == body["messages"]
    assert json.loads(entry["reply"]) == reply()


def test_the_reply_is_kept_as_it_came(tmp_path):
    raw = f"```json\n{json.dumps(reply(), indent=1)}\n```"
    with serving([raw]) as server:
        (made,) = rewrite(server, tmp_path / "journal.jsonl")
        (again,) = rewrite(server, tmp_path / "journal.jsonl")
    assert made.prompt == PROMPT
    assert made.reply == again.reply == raw


def test_a_prompt_that_breaks_the_rules_is_sent_back_once(tmp_path):
    with serving([reply(prompt="Nothing but fog, blur and fear in the whole park"), reply()]) as server:
        (made,) = rewrite(server, tmp_path / "journal.jsonl")
        assert made.problems == ()
        last = server.requests[1].body["messages"]
        assert [message["role"] for message in last] == ["system", "user", "assistant", "user"]
        assert "words of the caption are lost: dogs, playing, red, ball" in last[-1]["content"]
        assert len(server.requests) == 2
        assert rewrite(server, tmp_path / "journal.jsonl") == [made]
        assert len(server.requests) == 2  # the journal answered both


@pytest.mark.parametrize(
    "entries",
    [
        [("clarity", "Smeared by heavy motion blur."), ("emotion", PHRASES["emotion"])],
        [("clarity", "nowhere"), *PHRASES.items()],
        [*PHRASES.items(), ("clarity", "red ball")],
    ],
)
def test_a_phrase_is_found_in_the_prompt_whatever_its_capitals_and_its_stop(tmp_path, entries):
    effects = [{"dimension": name, "phrase": phrase} for name, phrase in entries]
    with serving([reply() | {"effects": effects}]) as server:
        (made,) = rewrite(server, tmp_path / "journal.jsonl")
    assert (made.problems, dict(made.phrases)) == ((), PHRASES)


def test_accents_may_be_written_in_two_ways(tmp_path):
    phrases = PHRASES | {"clarity": "a cafe\u0301 in heavy motion blur"}
    with serving([reply(f"{CAPTION}, a caf\u00e9 in heavy motion blur, {PHRASES['emotion']}", phrases)]) as server:
        (made,) = rewrite(server, tmp_path / "journal.jsonl")
    assert (made.problems, made.phrases["clarity"]) == ((), "a caf\u00e9 in heavy motion blur")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (reply(prompt=PROMPT.replace("dogs", "cats")), "words of the caption are lost: dogs"),
        (reply(prompt=f"{PROMPT}\u200b"), "characters that cannot be seen: U+200B"),
        (reply(negative="a b c d e f"), "negative prompt of 6 words; expected 1 to 5"),
        (reply(phrases={"clarity": PHRASES["clarity"]}), "the phrase given for 'emotion' does not stand in the prompt"),
        (reply(prompt=f"{PROMPT}, in clashing colors"), "names the unrequested effect 'color aesthetic': 'clashing'"),
    ],
)
def test_what_fails_again_is_listed_with_its_problems(tmp_path, bad, problem):
    with serving([bad]) as server:
        (made,) = rewrite(server, tmp_path / "journal.jsonl")
    assert len(server.requests) == 2
    assert made.asked.startswith(f"Caption: {CAPTION}")
    assert made.asked.endswith("Write it again.")
    assert made.problems[0].startswith(problem)
    assert json.loads(made.reply) == bad


def test_a_reply_that_never_fits_the_schema_is_listed_and_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("widespectrum.chat.client._pause", lambda seconds, stop: False)
    other = Request(pair_id="coco-2", caption=CAPTION, dimensions=("clarity", "emotion"))

    def answer(body):
        return "I will not \ud83d" if len(server.requests) <= 4 else reply()

    with serving(answer) as server:
        first = rewrite(server, tmp_path / "journal.jsonl", [REQUEST])
        second = rewrite(server, tmp_path / "other.jsonl", [other])
    assert first[0].reply == "I will not \\ud83d"
    assert "gave no reply to the question 'coco-1' that fits the schema" in first[0].problems[0]
    assert second[0].problems == ()


@pytest.mark.parametrize("name", ["gpt", "templates", ""])
def test_unknown_rewriters(tmp_path, name):
    with (
        pytest.raises(InputError, match=f"expected the rewriter 'template' or openai:.*, got '{name}'"),
        open_rewriter(name, tmp_path / "journal"),
    ):
        pass
