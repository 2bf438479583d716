import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.data import Episode, episodes, reward_weights, target_weights
from fettle.errors import DataError
from fettle.types import Message

WALK = [
    {"role": "user", "content": "Find the door."},
    {"role": "assistant", "content": "left"},
    {"role": "tool", "content": "a wall"},
    {"role": "assistant", "content": "right"},
    {"role": "tool", "content": "the door"},
]
MESSAGES = tuple(Message(**message) for message in WALK)
GOOD = {"messages": WALK, "reward": 1}


@pytest.mark.parametrize("earned", [{"reward": 1}, {"rewards": [0.25, 0.75]}, {"reward": 1.0, "rewards": [0, 1]}])
def test_a_reward_is_given_whole_or_for_each_action(written, earned):
    assert episodes(written({"messages": WALK, **earned})) == [Episode(MESSAGES, 1.0)]


def test_the_prompt_is_what_stands_before_the_first_action():
    assert Episode(MESSAGES, 1.0).prompt == MESSAGES[:1]


def test_episodes_that_earned_too_little_are_left_out(written):
    path = written(*({"messages": WALK, "reward": reward} for reward in (0, 0.5, 1)))
    assert [episode.reward for episode in episodes(path, min_reward=0.5)] == [0.5, 1.0]
    with pytest.raises(DataError, match=r"no episode of .* earned 2 or more, and the best earned 1\.0"):
        episodes(path, min_reward=2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"reward": None}, "reward is missing: it must be a number"),
        ({"reward": "1"}, "reward is a str"),
        ({"rewards": [1]}, "rewards holds 1, and the assistant has 2 messages"),
        ({"rewards": [1, "x"]}, r"rewards\[1\] is a str"),
        ({"rewards": 1}, "rewards must be a list of numbers"),
        ({"rewards": [1, 1]}, r"reward is 1\.0, and rewards add up to 2\.0: make them agree"),
        ({"messages": WALK[:1]}, "the assistant says nothing"),
        ({"messages": WALK[1:]}, "the assistant answers nothing"),
        ({"messages": []}, "messages must be a list"),
        ({"rewrad": 1}, "nothing here reads rewrad; did you mean reward?"),
    ],
)
def test_a_malformed_row_is_named(written, change, why):
    path = written(GOOD, {**GOOD, **change})
    with pytest.raises(DataError, match=why) as caught:
        episodes(path)
    assert caught.value.message.startswith(f"{path}:2: ")


def test_an_empty_file_is_an_error(written):
    with pytest.raises(DataError, match=r"rows\.jsonl is empty"):
        episodes(written())


# -- which messages are targets


@given(actions=st.floats(0, 2), observations=st.floats(0, 2))
def test_both_objectives_are_the_weighted_sum_of_each(actions, observations):
    cloning = np.array(target_weights(MESSAGES, actions=1.0, observations=0.0))
    world_model = np.array(target_weights(MESSAGES, actions=0.0, observations=1.0))
    assert cloning.tolist() == [0, 1, 0, 1, 0]
    assert world_model.tolist() == [0, 0, 1, 0, 1]
    both = target_weights(MESSAGES, actions=actions, observations=observations)
    assert both == pytest.approx(actions * cloning + observations * world_model)


def test_a_system_message_and_the_question_are_never_targets():
    talk = [Message("system", "Be brief."), *MESSAGES]
    assert target_weights(talk, actions=1.0, observations=1.0) == [0, 0, 1, 1, 1, 1]


# -- how much an episode weighs


def test_of_rewards_one_and_zero_only_the_first_moves_the_policy():
    assert reward_weights([1, 0], kind="reward").tolist() == [2.0, 0.0]


@given(reward=st.floats(0.01, 100), size=st.integers(1, 8), kind=st.sampled_from(["reward", "advantage"]))
def test_equal_rewards_are_plain_fine_tuning(reward, size, kind):
    assert reward_weights([reward] * size, kind=kind).tolist() == [1.0] * size


@given(rewards=st.lists(st.floats(-50, 50), min_size=1, max_size=8), temperature=st.floats(0.05, 10))
def test_the_mean_weight_is_one_and_a_better_episode_never_weighs_less(rewards, temperature):
    weights = reward_weights(rewards, kind="advantage", temperature=temperature)
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)
    assert (np.diff(weights[np.argsort(rewards)]) >= 0).all()


def test_advantages_weigh_by_their_exponential():
    weights = reward_weights([2.0, 0.0], kind="advantage", temperature=2.0)
    assert weights[0] / weights[1] == pytest.approx(math.e, rel=1e-6)  # (1 - -1) / 2 apart


def test_no_advantage_weighs_more_than_twenty_times_the_mean_one():
    weights = reward_weights([1000.0, *[0.0] * 999], kind="advantage", temperature=1.0)
    assert weights[0] / weights[1] == pytest.approx(20 / math.exp(-1.0), rel=1e-6)


@pytest.mark.parametrize(
    ("rewards", "why"),
    [
        ([1.0, -0.5], r"the reward of episode 1 is -0\.5, and a negative reward is no weight: weigh by advantage"),
        ([0.0, 0.0], "every reward is 0"),
        ([1.0, math.nan], "the reward of episode 1 is nan"),
    ],
)
def test_rewards_that_cannot_weigh_are_refused(rewards, why):
    with pytest.raises(DataError, match=why):
        reward_weights(rewards, kind="reward")
