"""How prompts share forward passes and shelves."""

import pytest

from fettle.engine.local.cache import CALL, shelved
from fettle.engine.local.shared import PREFILL_TOKENS, passes

LENGTHS = [[], [5], [30, 2, 30, 900, 31], [4096] * 5, list(range(1, 400)), [20_000, 20_000, 3]]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_prompt_is_in_one_pass_that_is_not_too_large(lengths: list[int]) -> None:
    found = passes(lengths)
    assert [place for own in found for place in range(own.start, own.stop)] == list(range(len(lengths)))
    for own in found:
        assert sum(lengths[own]) <= PREFILL_TOKENS or own.stop == own.start + 1


@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_prompt_is_on_one_shelf_that_is_hardly_padded(lengths: list[int]) -> None:
    groups = shelved(lengths)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        own = [lengths[place] for place in group]
        assert len(own) * max(own) - sum(own) <= CALL


def test_prompts_of_like_length_share_a_shelf() -> None:
    assert shelved([40, 44, 41, 39]) == [[3, 0, 2, 1]]
