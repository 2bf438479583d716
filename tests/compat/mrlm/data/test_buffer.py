"""A buffer of steps: raw returns, episodes kept apart, what a limit cut short."""

import pytest
import torch
from torch.utils.data import DataLoader

from fettle.compat.mrlm.data import RolloutBuffer
from fettle.errors import LossInputError


def buffer(steps) -> RolloutBuffer:
    """Of (reward, value, done, episode, next value)."""
    made = RolloutBuffer()
    for number, (reward, value, done, episode, next_value) in enumerate(steps):
        made.add(
            f"seen {number}", f"said {number}", reward,
            log_prob=-float(number), value=value, done=done, episode=episode, next_value=next_value,
        )  # fmt: skip
    return made


GOLDEN = [(1.0, 0.5, False, 0, None), (1.0, 0.5, True, 0, None), (1.0, 0.5, False, 1, None), (1.0, 0.5, False, 1, None)]


def test_advantages_are_cut_where_an_episode_is_done():
    advantages, returns = buffer(GOLDEN).compute_gae(0.9, 0.8, last_value=2.0, normalize=False)
    assert advantages.tolist() == pytest.approx([1.31, 0.5, 2.606, 2.3])
    assert returns.tolist() == pytest.approx([1.81, 1.0, 3.106, 2.8])


def test_returns_are_those_of_raw_advantages():
    raw, returns = buffer(GOLDEN).compute_gae(0.9, 0.8, last_value=2.0, normalize=False)
    scaled, same = buffer(GOLDEN).compute_gae(0.9, 0.8, last_value=2.0)
    torch.testing.assert_close(scaled, (raw - raw.mean()) / raw.std(correction=0))
    assert same.tolist() == returns.tolist()


def test_an_episode_that_follows_unflagged_changes_nothing_before_it():
    alone = buffer([(1.0, 0.5, False, 0, None), (0.0, 0.25, False, 0, None)])
    followed = buffer([(1.0, 0.5, False, 0, None), (0.0, 0.25, False, 0, None), (9.0, 9.0, False, 1, None)])
    first = alone.compute_gae(normalize=False)[0].tolist()
    assert followed.compute_gae(normalize=False)[0].tolist()[:2] == first


def test_what_is_truncated_would_have_gone_on():
    cut, over = buffer([(1.0, 0.0, False, 0, 2.0)]), buffer([(1.0, 0.0, True, 0, None)])
    assert cut.compute_returns(gamma=0.5).tolist() == [2.0]
    assert over.compute_returns(gamma=0.5).tolist() == [1.0]


def test_returns_are_discounted_within_an_episode():
    made = buffer([(1.0, 7.0, False, 0, None), (1.0, 7.0, False, 0, None), (1.0, 7.0, True, 0, None)])
    assert made.compute_returns(gamma=0.5).tolist() == [1.75, 1.5, 1.0]


def test_a_batch_and_a_dataset_hold_the_steps_in_order():
    made = buffer(GOLDEN)
    with pytest.raises(LossInputError, match="call compute_gae"):
        made.to_batch()
    advantages, returns = made.compute_gae()
    batch = made.to_batch()
    assert batch.actions == ["said 0", "said 1", "said 2", "said 3"]
    assert batch.log_probs.tolist() == [0, -1, -2, -3]
    [rows] = DataLoader(made.to_dataset(), batch_size=4)
    torch.testing.assert_close(rows[-1], advantages)
    torch.testing.assert_close(rows[-2], returns)


def test_the_oldest_go_and_clear_forgets_all():
    made = RolloutBuffer(max_size=2)
    for number in range(3):
        made.add(number, number, 0.0, log_prob=0.0)
    made.compute_gae()
    assert made.to_batch().observations == [1, 2]
    made.clear()
    assert len(made) == 0
