"""A reward put together in code: it sums, each weight counts, and what fails is a fault."""

import math

import pytest

from fettle.errors import ConfigError, EnvironmentFault
from fettle.rewards import RewardCalculator, number
from fettle.types import Message, Task

TASK = Task((Message("user", "Seven?"),), {"answer": "7"}, "test")


async def words(reply: str, task: Task) -> dict[str, float]:
    return {"some": 0.25, "more": 0.25 * len(reply)}


async def test_the_breakdown_sums_to_the_reward():
    calculator = RewardCalculator()
    calculator.add("right", number, weight=0.5)
    calculator.add("words", words, weight=-2.0)
    assert await calculator.breakdown("7", TASK) == {"right": 0.5, "words": -1.0}
    assert await calculator.total("7", TASK) == -0.5
    calculator.remove("words")
    assert await calculator.total("7", TASK) == 0.5


async def test_a_component_that_fails_is_a_fault_and_no_zero():
    calculator = RewardCalculator()
    calculator.add("right", number)
    calculator.add("broken", lambda reply, task: 1 / 0)
    with pytest.raises(EnvironmentFault, match=r"reward broken raised on task .*: ZeroDivisionError"):
        await calculator.total("7", TASK)


async def test_what_cannot_be_is_refused():
    calculator = RewardCalculator()
    with pytest.raises(ConfigError, match="there is no component: add one"):
        await calculator.total("7", TASK)
    calculator.add("right", number)
    with pytest.raises(ConfigError, match="the component right is there already"):
        calculator.add("right", number)
    with pytest.raises(ConfigError, match="the weight of more is nan"):
        calculator.add("more", number, weight=math.nan)
    with pytest.raises(ConfigError, match="there is no component 'rigt'; did you mean right"):
        calculator.remove("rigt")
