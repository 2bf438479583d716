import asyncio
import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from fettle.errors import ConfigError, EnvironmentFault
from fettle.rewards import REWARDS, breakdown, reward, scored
from fettle.types import Message, Task

TASK = Task((Message("user", "3 + 4 ="),), {"answer": "7"}, "sums")


@pytest.mark.parametrize("name", REWARDS)
async def test_every_row_pays_one_for_the_answer_and_zero_for_another(name):
    paid = [await scored(name, reward(name), reply, TASK) for reply in ("7", "8")]
    assert [sum(components.values()) for components in paid] == [1.0, 0.0]


def test_a_function_of_ones_own_is_loaded_by_its_place(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text("def short(reply, task):\n    return 1 / len(reply)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert reward("own_rewards:short")("7777", TASK) == 0.25


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no reward is named 'exact_mach'.*did you mean exact_match"):
        reward("exact_mach")


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"nowhere_at_all:score cannot be imported.*PYTHONPATH"):
        reward("nowhere_at_all:score")


def test_a_module_that_breaks_on_import_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_rewards.py").write_text("raise KeyError('token')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"broken_rewards:score cannot be imported \(KeyError: 'token'\)"):
        reward("broken_rewards:score")


def test_a_function_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"module math has no function 'sqr'.*did you mean sqrt"):
        reward("math:sqr")


def test_a_name_that_is_not_a_function_is_refused():
    with pytest.raises(ConfigError, match="module math has no function 'pi'"):
        reward("math:pi")


@pytest.mark.parametrize("paid", [0.5, 1, True, np.float32(0.5), np.int64(2), Fraction(1, 2)])
def test_a_number_is_one_component_under_the_rewards_name(paid):
    components = breakdown("short", lambda reply, task: paid, "7", TASK)
    assert components == {"short": float(paid)}
    assert type(components["short"]) is float


def test_named_components_are_kept():
    assert breakdown("mixed", lambda reply, task: {"right": 1, "long": -0.25}, "7", TASK) == {
        "right": 1.0,
        "long": -0.25,
    }


@pytest.mark.parametrize(
    "paid", [math.nan, math.inf, 10**400, None, "1", [1.0], 1j, {"right": math.nan}, {"right": 10**400}, {}]
)
def test_what_is_no_finite_number_is_a_fault(paid):
    with pytest.raises(EnvironmentFault, match=f"reward short paid .* on task {TASK.id}"):
        breakdown("short", lambda reply, task: paid, "7", TASK)


def test_a_reward_that_raises_is_a_fault_that_names_reward_task_and_cause():
    with pytest.raises(EnvironmentFault, match=f"reward short raised on task {TASK.id}: ZeroDivisionError: division"):
        breakdown("short", lambda reply, task: 1 / 0, "7", TASK)


@pytest.mark.parametrize(("paid", "said"), [(math.nan, "paid nan on"), ({"right": math.nan}, "paid nan as right on")])
def test_a_part_is_named_only_where_it_has_a_name_of_its_own(paid, said):
    with pytest.raises(EnvironmentFault, match=f"^reward mine:short {said} task"):
        breakdown("mine:short", lambda reply, task: paid, "7", TASK)


async def paid_later(reply: str, task: Task) -> float:
    await asyncio.sleep(0)
    return float(reply == task.data["answer"])


class Waits:
    async def __call__(self, reply: str, task: Task) -> dict[str, float]:
        return {"right": await paid_later(reply, task), "asked": 1.0}


async def test_a_coroutine_function_is_waited_for():
    assert await scored("later", paid_later, "7", TASK) == {"later": 1.0}
    assert await scored("later", partial(paid_later), "8", TASK) == {"later": 0.0}
    assert await scored("waits", Waits(), "7", TASK) == {"right": 1.0, "asked": 1.0}


async def test_a_plain_function_is_scored_alike():
    assert await scored("plain", lambda reply, task: 0.5, "7", TASK) == {"plain": 0.5}


async def test_what_a_coroutine_function_raises_is_a_fault():
    async def broken(reply: str, task: Task) -> float:
        raise ConnectionError("nobody answers")

    with pytest.raises(EnvironmentFault, match=f"reward later raised on task {TASK.id}: ConnectionError: nobody"):
        await scored("later", broken, "7", TASK)


async def test_what_a_coroutine_function_pays_is_checked():
    async def loose(reply: str, task: Task) -> float:
        return math.nan

    with pytest.raises(EnvironmentFault, match=f"reward later paid nan on task {TASK.id}"):
        await scored("later", loose, "7", TASK)


async def test_who_stops_waiting_is_no_fault_of_the_reward():
    async def endless(reply: str, task: Task) -> float:
        return float(await asyncio.Event().wait())

    waiting = asyncio.ensure_future(scored("later", endless, "7", TASK))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
