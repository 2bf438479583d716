"""More credit where a solution is planned, and which tokens those are."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fettle.advantages import planning, planning_credit, planning_mask
from fettle.errors import ConfigError, LossInputError


def mask(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_success_is_amplified_and_failure_softened_on_planning_tokens_only():
    found = planning_credit(mask(1, -1, 1, -1, 0), mask(1, 1, 0, 0, 1))
    np.testing.assert_allclose(found, [1.2, -0.8, 1, -1, 0], rtol=1e-6)
    assert found.dtype == np.float32


@given(arrays(np.float32, 6, elements=st.floats(-1e3, 1e3, width=32)), st.floats(0, 1))
def test_without_planning_tokens_credit_is_the_same_to_the_bit(advantages, alpha):
    assert planning_credit(advantages, np.zeros(6, np.float32), alpha=alpha).tobytes() == advantages.tobytes()


@given(arrays(np.float32, 6, elements=st.floats(-1e3, 1e3, width=32)))
def test_at_alpha_0_planning_counts_as_much_as_everything_else(advantages):
    np.testing.assert_array_equal(planning_credit(advantages, np.ones(6, np.float32), alpha=0.0), advantages)


@given(arrays(np.float32, 6, elements=st.floats(-1e3, 1e3, width=32)), st.floats(0, 0.9))
def test_planning_never_loses_credit_and_never_turns_it_round(advantages, alpha):
    found = planning_credit(advantages, np.ones(6, np.float32), alpha=alpha)
    assert (found >= advantages).all()
    assert (np.sign(found) == np.sign(advantages)).all()


def test_advantages_and_mask_of_different_lengths_are_named_with_both():
    with pytest.raises(LossInputError, match=r"the advantages have shape \[2\] beside tokens of shape \[3\]"):
        planning_credit(mask(1, 1), mask(1, 1, 1))


@pytest.mark.parametrize(
    ("pieces", "phrase", "expected"),
    [
        (["Let", "'s try", " a", "nother way", "."], "let's try another way", [1, 1, 1, 1, 0]),
        (["so LET US", "\n\n", "see", " 1"], "let us see", [1, 1, 1, 0]),
        (["outlet us see"], "let us see", [0]),
        (["let us seek"], "let us see", [0]),
        (["let us", " see", "k"], "let us see", [0, 0, 0]),
        (["let  us ", "", "see"], "  Let us\tsee ", [1, 0, 1]),
        (["a b", " a", " b a"], "a b a", [1, 1, 1]),
        (["what (if", ") we"], "what (if) we", [1, 1]),
        (["what (iff", ") we"], "what (if.) we", [0, 0]),
        (["das GRO", "SSE ganze ", "x"], "das große ganze", [1, 1, 0]),
        (["1 + 2", " = 3"], "let us see", [0, 0]),
        ([], "let us see", []),
    ],
)
def test_tokens_of_a_phrase_are_found(pieces, phrase, expected):
    assert planning_mask(pieces, [phrase]).tolist() == expected


def test_phrases_may_overlap():
    pieces = ["let me", " think", " about it", " now"]
    assert planning_mask(pieces, ["let me think", "think about it"]).tolist() == [1, 1, 1, 0]


@given(st.lists(st.text("abc XÄß\n", max_size=4), max_size=8), st.text("abcä ", max_size=3), st.text("abß", min_size=1))
def test_where_a_text_is_split_does_not_change_what_is_found(pieces, before, word):
    phrase = f"{before} {word}"
    by_character = planning_mask(list("".join(pieces)), [phrase])
    found = planning_mask(pieces, [phrase])
    ends = np.cumsum([len(piece) for piece in pieces], dtype=int)
    expected = [by_character[end - len(piece) : end].any() for piece, end in zip(pieces, ends, strict=True)]
    assert found.astype(bool).tolist() == expected


def test_a_phrase_without_words_is_refused():
    with pytest.raises(ConfigError, match="the planning phrase ' ' has no words"):
        planning_mask(["let us see"], [" "])


def test_the_example_is_so():
    assert doctest.testmod(planning) == (0, 1)
