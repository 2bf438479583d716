"""What environments answer is looked at before anything is made of it."""

import math

import pytest

from fettle.config import Arithmetic
from fettle.environments import Observation, StepResult
from fettle.environments.answers import check_observation, check_step, finite, paid
from fettle.environments.rewarded import RewardedEnvironment
from fettle.environments.scoring import ScoringThread
from fettle.errors import EnvironmentFault
from fettle.rewards import parts
from fettle.types import Message, Task, ToolCall, ToolSpec

TASK = Task((Message("user", "Go."),), {}, "test")


class Paying:
    def __init__(self, reward) -> None:
        self.reward = reward

    async def reset(self, task):
        return Observation(task.prompt)

    async def step(self, action):
        return StepResult((), self.reward, True, False, {"won": self.reward})

    async def close(self):
        pass


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf, 10**400, "1", None, [1.0]], ids=str)
async def test_no_clip_makes_a_reward_of_what_is_none(reward):
    """Python's ``min(1.0, nan)`` is 1.0, the most that could be earned."""
    settings = Arithmetic(heldout=5, rewards=({"reward": "environment", "clip": 1.0},)).rewards
    environment = RewardedEnvironment(Paying(reward), parts(settings), ScoringThread())
    await environment.reset(TASK)
    with pytest.raises(EnvironmentFault, match="as reward: it must be a finite number"):
        await environment.step(Message("assistant", "x"))


async def test_parts_that_do_not_sum_are_told_under_a_reward_of_parts_too():
    class Torn(Paying):
        async def step(self, action):
            return StepResult((), 1.0, True, False, {"won": 0.25})

    settings = Arithmetic(heldout=5, rewards=({"reward": "environment"},)).rewards
    environment = RewardedEnvironment(Torn(1.0), parts(settings), ScoringThread())
    await environment.reset(TASK)
    with pytest.raises(EnvironmentFault, match=r"its components sum to 0\.25"):
        await environment.step(Message("assistant", "x"))


def test_what_is_as_it_should_be_passes():
    tool = ToolSpec("add", "Adds.", "{}")
    check_observation(Observation([Message("user", "Go.")], tools=(tool,)))
    check_step(StepResult((Message("tool", "3", tool_call_id="call_0_0"),), 0.0, False, False, {}, {"moves": 3}))
    assert paid(StepResult((), 0.5, True, False, {})) == {"reward": 0.5}
    assert paid(StepResult((), 0, True, False, {})) == {}
    assert finite({"a": 1, "b": 0.5}) == {"a": 1.0, "b": 0.5}
    assert finite({"solved": True}, "measured") == {"solved": 1.0}


def test_calls_are_calls():
    calling = Message("assistant", "", ({"name": "add"},))
    with pytest.raises(EnvironmentFault, match="tool_calls are a tuple of dict"):
        check_step(StepResult((calling,), 0.0, False, False, {}))
    check_step(StepResult((Message("assistant", "", (ToolCall("c", "add", "{}"),)),), 0.0, False, False, {}))
