"""Stop strings are found in the token that completes them, however they fall on tokens."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fettle.engine.local.stopping import Pieces, StopStrings

TEXTS = st.text("ab. \n→é", max_size=60)
STRINGS = st.lists(st.text("ab. \n→é", min_size=1, max_size=6), min_size=1, max_size=3)


class Chunks:
    """A vocabulary of byte strings; half characters decode to U+FFFD, as byte-level tokenizers have it."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = list(chunks)
        self.decoded = 0

    def __call__(self, tokens: Sequence[int]) -> str:
        self.decoded += len(tokens)
        return b"".join(self.chunks[token] for token in tokens).decode(errors="replace")


@given(text=TEXTS, strings=STRINGS, sizes=st.lists(st.integers(1, 4), min_size=60, max_size=240))
def test_a_row_stops_at_the_first_token_after_which_its_text_holds_a_string(
    text: str, strings: list[str], sizes: list[int]
) -> None:
    data, chunks = text.encode() + b"." * 240, []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    decode = Chunks(chunks)
    watch = StopStrings(strings, Pieces(decode))
    found = next((n for n in range(len(chunks)) if watch.completed_by(n)), None)
    holding = [n for n in range(len(chunks)) if any(s in decode(range(n + 1)) for s in strings)]
    assert found == (holding[0] if holding else None)


def test_a_string_that_begins_with_a_space_is_found_though_decoders_strip_the_first() -> None:
    pieces = ["a", " ", " ab"]

    def decode(tokens: Sequence[int]) -> str:
        return "".join(pieces[token] for token in tokens).removeprefix(" ")

    in_one, in_two, at_the_end = (StopStrings([string], Pieces(decode)) for string in (" ab", " a", "a "))
    assert [in_one.completed_by(token) for token in (0, 0, 0, 0, 2)] == [False] * 4 + [True]
    assert [in_two.completed_by(token) for token in (0, 0, 1, 0)] == [False] * 3 + [True]
    assert [at_the_end.completed_by(token) for token in (0, 0, 1)] == [False] * 2 + [True]


def test_what_is_decoded_for_a_token_does_not_grow_with_the_text() -> None:
    decode = Chunks([b"a", b"b", b"."])
    watch = StopStrings(["ab..b"], Pieces(decode))
    assert not any(watch.completed_by(n % 2) for n in range(1000))
    assert decode.decoded < 12 * 1000


def test_tokens_that_cannot_complete_a_string_are_decoded_once() -> None:
    decode = Chunks([b"a", b"b", b"."])
    watch = StopStrings(["."], Pieces(decode))
    assert not any(watch.completed_by(n % 2) for n in range(1000))
    assert decode.decoded == 4
