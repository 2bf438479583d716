"""What is watched of planning credit: numbers that mean something whatever the rewards are."""

import numpy as np
import pytest

from fettle.router.episodes import Rollout
from fettle.router.planning import successes, watched
from fettle.router.training import train


def rollout(rewards, planning, *, returns=(), ended=True):
    rewards = np.array(rewards, np.float64)
    nothing = np.zeros(rewards.shape)
    return Rollout(
        observations=np.zeros((*rewards.shape, 1), np.float32),
        modes=np.zeros(rewards.shape, np.int64),
        logprobs=nothing.astype(np.float32),
        values=nothing,
        next_values=nothing,
        truncated=nothing + ended,
        rewards=rewards,
        planning=np.array(planning, np.float32),
        terms={},
        episode_returns=np.array(returns),
        episode_length=1.0,
    )


def test_the_share_is_of_the_size_of_rewards_so_that_signs_do_not_cancel():
    found = watched(rollout([[1.0], [-3.0]], [[1.0], [0.0]]), 5)
    assert found == {"hicra_planner_reward_ratio": 0.25, "hicra_depth": 2.0, "hicra_success_total": 5.0}


def test_where_nothing_was_earned_and_nothing_begun_there_are_numbers_too():
    found = watched(rollout([[0.0], [0.0]], [[0.0], [0.0]]), 0)
    assert found == {"hicra_planner_reward_ratio": 0.0, "hicra_depth": 2.0, "hicra_success_total": 0.0}


def test_a_success_is_an_episode_that_ended_above_nothing():
    assert successes(rollout([[1.0]], [[1.0]], returns=[0.5, 0.0, -1.0, 2.0])) == 2
    assert successes(rollout([[1.0]], [[1.0]], returns=[0.5], ended=False)) == 0


def test_a_run_tells_of_them_where_planning_credit_is_on(small):
    rows, without = [], []
    train(small("rllm.hicra.enabled=true"), told=rows.append)
    train(small(), told=without.append)
    assert [name for name in rows[0] if name not in without[0]] == list(watched(rollout([[0.0]], [[0.0]]), 0))
    assert rows[-1]["hicra_depth"] == pytest.approx(4, rel=0.7)  # as many decisions as a task takes
    totals = [row["hicra_success_total"] for row in rows]
    assert totals == sorted(totals)
    assert totals[-1] > 0
