import asyncio
import math

import pytest

from fettle.environments import ScoringThread, SingleTurn, paying
from fettle.errors import EnvironmentFault
from fettle.types import Message, Task

TASK = Task((Message("system", "be brief"), Message("user", "3 + 4 =")), {"answer": "7"}, "sums")


async def test_the_prompt_is_seen_and_the_reply_is_paid():
    environment = SingleTurn(
        paying("mixed", lambda reply, task: {"right": float(reply == task.data["answer"]), "short": 0.5})
    )
    observation = await environment.reset(TASK)
    result = await environment.step(Message("assistant", "7"))
    assert observation.messages == TASK.prompt
    assert (result.messages, result.terminated, result.truncated) == ((), True, False)
    assert result.reward == 1.5
    assert result.components == {"right": 1.0, "short": 0.5}


async def test_a_reward_that_raises_is_a_fault_and_not_a_zero():
    environment = SingleTurn(paying("brittle", lambda reply, task: float(reply)))
    await environment.reset(TASK)
    with pytest.raises(EnvironmentFault, match=f"reward brittle raised on task {TASK.id}: ValueError"):
        await environment.step(Message("assistant", "seven"))


async def test_a_reward_that_is_not_a_number_is_a_fault_and_not_a_zero():
    environment = SingleTurn(paying("loose", lambda reply, task: math.nan))
    await environment.reset(TASK)
    with pytest.raises(EnvironmentFault, match=f"reward loose paid nan on task {TASK.id}"):
        await environment.step(Message("assistant", "7"))


async def test_an_environment_plays_one_episode():
    environment = SingleTurn(paying("free", lambda reply, task: 1.0))
    with pytest.raises(EnvironmentFault, match="no episode to step"):
        await environment.step(Message("assistant", "7"))
    await environment.reset(TASK)
    with pytest.raises(EnvironmentFault, match="plays one episode"):
        await environment.reset(TASK)
    await environment.step(Message("assistant", "7"))
    with pytest.raises(EnvironmentFault, match="no episode to step"):
        await environment.step(Message("assistant", "7"))


async def test_closing_twice_is_fine():
    environment = SingleTurn(paying("free", lambda reply, task: 1.0))
    assert [await environment.close() for _ in range(2)] == [None, None]


@pytest.mark.parametrize("thread", [None, ScoringThread()])
async def test_a_reward_that_has_to_wait_leaves_the_loop_to_others(thread):
    heard = asyncio.Event()

    async def patient(reply, task):
        return float(await heard.wait())

    environment = SingleTurn(paying("patient", patient, thread))
    await environment.reset(TASK)
    result, _ = await asyncio.gather(environment.step(Message("assistant", "7")), _set(heard))
    assert result.components == {"patient": 1.0}


async def _set(event):
    event.set()
