"""An environment of one's own as a suite: every reset a task, every episode in a copy."""

import pytest

from fettle.compat.mrlm.core import Message, Observation, Reward
from fettle.compat.mrlm.suite import ResetSuite
from fettle.errors import EnvironmentFault
from fettle.types import Message as PlainMessage

from .guessing import Guessing


async def test_episodes_of_one_task_do_not_see_each_other():
    suite = ResetSuite("guessing", Guessing(), heldout=2, max_steps=2, system_prompt="be brief")
    assert len(suite.heldout_tasks()) == 1  # both ask the same
    task = suite.training_task(0)
    assert [message.role for message in task.prompt] == ["system", "user"]
    one, other = suite.environment(), suite.environment()
    for environment in (one, other):
        await environment.reset(task)
    said = PlainMessage("assistant", "seven")
    first = await one.step(said)
    assert (first.messages[0].role, first.messages[0].content) == ("user", "told 1")
    assert (first.reward, dict(first.components)) == (1.5, {"turn": 1.0, "courtesy": 0.5})
    second = await one.step(said)
    assert (second.terminated, second.truncated, second.messages) == (False, True, ())
    assert (await other.step(said)).messages[0].content == "told 1"


class Broken(Guessing):
    def step(self, action: Message) -> tuple[Observation, Reward]:
        raise ZeroDivisionError("nobody is here")


async def test_what_an_environment_raises_is_its_fault():
    suite = ResetSuite("broken", Broken(), heldout=1, max_steps=2, system_prompt=None)
    environment = suite.environment()
    await environment.reset(suite.training_task(0))
    with pytest.raises(EnvironmentFault, match="broken raised in step: ZeroDivisionError: nobody is here"):
        await environment.step(PlainMessage("assistant", "hello"))


class Silent(Guessing):
    def reset(self) -> Observation:
        return Observation()


class Priceless(Guessing):
    def step(self, action: Message) -> tuple[Observation, Reward]:
        return Observation(done=True), Reward(float("nan"))


def test_an_environment_that_asks_nothing_is_refused():
    with pytest.raises(EnvironmentFault, match="silent asks nothing after reset"):
        ResetSuite("silent", Silent(), heldout=1, max_steps=1, system_prompt=None)


async def test_a_reward_that_is_no_number_is_refused():
    suite = ResetSuite("priceless", Priceless(), heldout=1, max_steps=1, system_prompt=None)
    environment = suite.environment()
    await environment.reset(suite.training_task(0))
    with pytest.raises(EnvironmentFault, match="priceless paid nan"):
        await environment.step(PlainMessage("assistant", "hello"))
