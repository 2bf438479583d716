"""The text of each token: where a reply's phrases are looked up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.chat import Template

from .conftest import TEMPLATES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("name", ["chatml", "tagged", "plain"])
@given(text=TEXT)
def test_together_the_pieces_are_what_the_reply_says(tokenizers, templates, name, text):
    sampled = tokenizers(name).encode(text, add_special_tokens=False)
    pieces = templates(name).pieces(sampled)
    assert len(pieces) == len(sampled)
    assert "".join(pieces) == templates(name).reply(sampled).content


@given(text=st.text("ab 12.", max_size=20))
def test_a_space_before_a_word_belongs_to_its_token(spaces_first, text):
    template, sampled = Template(spaces_first), spaces_first.encode(text, add_special_tokens=False)
    assert "".join(template.pieces(sampled)) == template.reply(sampled).content


def test_a_character_of_several_tokens_stands_with_the_last(tokenizers, templates):
    sampled = tokenizers("chatml").encode("a€b", add_special_tokens=False)
    assert len(sampled) == 5
    assert templates("chatml").pieces(sampled) == ["a", "", "", "€", "b"]


def test_special_tokens_and_the_one_that_ends_the_reply_have_no_text(tokenizers, templates):
    for name, end in (("chatml", "<|im_end|>"), ("tagged", "</turn>")):
        encode = tokenizers(name).encode
        sampled = encode("a<s>1" + end, add_special_tokens=False)
        assert templates(name).pieces(sampled) == ["a", "", "1", ""]


@given(sampled=st.lists(st.integers(0, 319), max_size=12))
def test_any_tokens_have_as_many_pieces(templates, sampled):
    for name in ("chatml", "plain"):
        assert len(templates(name).pieces(sampled)) == len(sampled)


def test_bytes_that_are_no_characters_do_not_hold_up_what_follows(tokenizers, templates):
    stray = tokenizers("chatml").encode("€", add_special_tokens=False)[:1]
    word = tokenizers("chatml").encode("a", add_special_tokens=False)
    pieces = templates("chatml").pieces([*stray * 9, *word])
    assert pieces[-1].endswith("a")
    assert len(pieces[-1]) <= 4


def test_every_template_can_be_read_piece_by_piece(tokenizers, templates):
    working = [name for name in TEMPLATES if name not in {"broken", "forgets replies"}]
    for name in working:
        sampled = tokenizers(name).encode("12 + 34 is 46", add_special_tokens=False)
        assert "".join(templates(name).pieces(sampled)) == "12 + 34 is 46"
