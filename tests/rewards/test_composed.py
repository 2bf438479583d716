"""A reward of parts is the sum of its parts, each as its settings say."""

import pytest

from fettle.config import RewardPart
from fettle.errors import ConfigError
from fettle.rewards import parts, weighed


@pytest.mark.parametrize(
    ("settings", "value", "paid"),
    [
        ({}, 0.7, 0.7),
        ({"scale": 2.0}, 0.7, 1.4),
        ({"scale": -0.5}, 0.7, -0.35),
        ({"clip": 0.5}, 0.7, 0.5),
        ({"clip": 0.5}, -9.0, -0.5),
        ({"bias": 0.1}, 0.7, 0.8),
        ({"scale": 10.0, "clip": 2.0, "bias": -1.0}, 0.7, 1.0),
    ],
)
def test_scale_then_clip_then_bias(settings, value, paid):
    assert weighed(value, RewardPart(reward="number", **settings)) == pytest.approx(paid)


def test_the_bias_is_paid_once():
    part = RewardPart(reward="number", scale=2.0, bias=5.0)
    assert weighed(1.0, part, ends=False) == 2.0
    assert weighed(1.0, part) == 7.0


def test_a_part_is_called_as_its_reward_or_as_it_is_told():
    found = parts([RewardPart(reward="number"), RewardPart(reward="environment", name="own")])
    assert [part.name for part in found] == ["number", "own"]
    assert [part.function is None for part in found] == [False, True]


def test_a_reward_of_your_own_is_named_by_its_module():
    [part] = parts([RewardPart(reward="examples.own_reward:tone")])
    assert part.function.__name__ == "tone"


def test_an_unknown_reward_is_an_error():
    with pytest.raises(ConfigError, match=r"no reward is named 'numbr'.*did you mean"):
        parts([RewardPart(reward="numbr")])
