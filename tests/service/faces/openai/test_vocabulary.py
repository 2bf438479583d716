"""Single tokens, byte for byte."""

from types import SimpleNamespace

from fettle.service.faces.openai.vocabulary import Vocabulary


def test_the_bytes_of_tokens_are_the_bytes_of_their_text(tokenizer):
    text = "what is 日本語 😀 é\n<answer>4</answer>"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(Vocabulary(tokenizer).bytes_of, tokens)).decode() == text


def test_what_is_no_character_is_spelt_in_bytes(tokenizer):
    vocabulary = Vocabulary(tokenizer)
    labels = [vocabulary.label(token) for token in tokenizer.encode("é", add_special_tokens=False)]
    assert labels in (["é"], [r"bytes:\xc3", r"bytes:\xa9"])


def test_special_tokens_are_spelt_out(tokenizer):
    assert Vocabulary(tokenizer).label(tokenizer.eos_token_id) == tokenizer.eos_token


def test_pieces_of_sentencepiece_are_read_as_theirs():
    pieces = ["▁what", "<0xE2>", "é"]
    tokenizer = SimpleNamespace(added_tokens_decoder={}, is_fast=False, convert_ids_to_tokens=pieces.__getitem__)
    vocabulary = Vocabulary(tokenizer)
    assert [vocabulary.bytes_of(token) for token in range(3)] == [b" what", b"\xe2", "é".encode()]
