"""Text as it is drawn: characters stay whole, and stop strings stay unseen."""

import pytest

from fettle.service.faces.openai.speech import Speech

WORDS = [
    "plain words",
    "héllo wörld",
    "日本語 and 😀😃 mixed",
    "👩‍👩‍👧‍👦 family",
    "\ufffd kept",
    "a\n\nb",
    "  two  spaces ",
]


def spoken(speech: Speech, tokens: list[int]) -> list[str]:
    return [*map(speech.add, tokens), speech.rest()]


@pytest.mark.parametrize("text", WORDS)
def test_the_pieces_are_the_text_and_no_character_is_split(tokenizer, text):
    tokens = tokenizer.encode(text, add_special_tokens=False)
    pieces = spoken(Speech(tokenizer.decode), tokens)
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_character_come_out_at_the_end(tokenizer):
    tokens = tokenizer.encode("ok 😀", add_special_tokens=False)[:-1]
    assert "".join(spoken(Speech(tokenizer.decode), tokens)) == "ok \ufffd"


@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        (["two"], "what is "),
        (["is two and", "what is four"], "what "),
        (["three?"], "what is two and "),
        (["threes"], "what is two and three?"),
        (["w", "what"], ""),
        ([" ", "is"], "what"),
    ],
)
def test_a_stop_string_is_never_seen_not_even_its_beginning(tokenizer, stop, shown):
    tokens = tokenizer.encode("what is two and three?", add_special_tokens=False)
    speech = Speech(tokenizer.decode, stop=stop)
    seen = ""
    for piece in spoken(speech, tokens):
        seen += piece
        assert shown.startswith(seen)
    assert seen == shown
    assert speech.stopped == (shown != "what is two and three?")


def test_a_stop_string_of_many_bytes_is_found_across_tokens(tokenizer):
    tokens = tokenizer.encode("ab😀cd", add_special_tokens=False)
    assert "".join(spoken(Speech(tokenizer.decode, stop=["😀c"]), tokens)) == "ab"


def test_special_tokens_have_no_text(tokenizer):
    end = tokenizer.eos_token_id
    tokens = [end, *tokenizer.encode("two", add_special_tokens=False), end, end]
    assert "".join(spoken(Speech(tokenizer.decode, silent={end}), tokens)) == "two"


def test_text_goes_on_from_what_stands_before(tokenizer):
    """A decoder that strips the space from the beginning of a text does not strip it from a continuation."""

    def stripping(tokens):
        return tokenizer.decode(tokens).removeprefix(" ")

    before, tokens = tokenizer.encode("what", add_special_tokens=False), tokenizer.encode(" is two")
    assert "".join(spoken(Speech(stripping, before=before), tokens)) == " is two"
    assert "".join(spoken(Speech(stripping), tokens)) == "is two"
