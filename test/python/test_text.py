"""Tokens to text: whole characters, and stop strings wherever tokens cut them."""

import random

import pytest

from moa.serving.text import TextStream
from served import tokenizer

TOKENS = tokenizer()
LETTERS = "ab \u00e9\u20ac\u4e16\U0001f642\n"


def pieces(text, stops=(), context=()):
    """The stream's pieces of a text's tokens, until a stop or the end."""
    stream = TextStream(TOKENS, context, stops)
    out = []
    for token in TOKENS(text)["input_ids"]:
        out.append(stream.push(token))
        if stream.stopped:
            return out, True
    out.append(stream.finish())
    return out, stream.stopped


def test_characters_come_whole():
    for seed in range(200):
        chance = random.Random(seed)
        text = "".join(chance.choices(LETTERS, k=30))
        out, stopped = pieces(text)
        assert "".join(out) == text
        assert not any("\ufffd" in piece for piece in out)
        assert not stopped


def test_stop_strings_anywhere():
    """Against the whole text cut at the first of them."""
    found = 0
    for seed in range(400):
        chance = random.Random(seed)
        text = "".join(chance.choices(LETTERS, k=30))
        stops = ["".join(chance.choices(LETTERS, k=chance.randint(1, 3))) for _ in range(2)]
        starts = [text.index(stop) for stop in stops if stop in text]
        out, stopped = pieces(text, stops)
        assert stopped == bool(starts)
        assert "".join(out) == (text[: min(starts)] if starts else text)
        found += stopped
    assert 100 < found < 400


def test_text_that_only_looks_like_a_stop_is_not_lost():
    out, stopped = pieces("one STO", ["STOP"])
    assert ("".join(out), stopped) == ("one STO", False)
    assert "".join(out[:-1]) == "one "


def test_bytes_that_are_no_text():
    """They come out as replacement characters, and the text goes on."""
    stream = TextStream(TOKENS)
    bad = TOKENS.backend_tokenizer.token_to_id("\u0122")  # The byte 0x80.
    text = "".join(stream.push(bad) for _ in range(20))
    text += "".join(stream.push(token) for token in TOKENS("ok")["input_ids"])
    text += stream.finish()
    assert text == "\ufffd" * 20 + "ok"


def test_half_a_character_at_the_end():
    stream = TextStream(TOKENS)
    first = TOKENS("\u20ac")["input_ids"][:2]
    assert [stream.push(token) for token in first] == ["", ""]
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize("context", ["", "abc", "\u20ac\u20ac\u20ac"])
def test_a_prompt_before_it_changes_nothing(context):
    ids = TOKENS(context)["input_ids"] if context else []
    assert "".join(pieces("x\u20ac y", context=ids)[0]) == "x\u20ac y"
