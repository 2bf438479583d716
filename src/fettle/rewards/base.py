"""Rewards: functions of a reply and its task, by name, whose named components sum."""

import importlib
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any, TypeGuard

from fettle.errors import ConfigError, EnvironmentFault, did_you_mean
from fettle.rewards import mathematics
from fettle.rewards.matching import exact_match, number
from fettle.types import Task

Paid = float | Mapping[str, float]
"""A number, or named components that sum to it."""

PlainReward = Callable[[str, Task], Paid]
AwaitedReward = Callable[[str, Task], Awaitable[Paid]]

RewardFunction = PlainReward | AwaitedReward
"""A reply (or the answer taken from it) and its task in; a number out, or named components that sum to it.

One that has to wait (for a sandbox, for a judge) is a coroutine function.
"""

REWARDS: Mapping[str, RewardFunction] = MappingProxyType(
    {"exact_match": exact_match, "number": number, "math": mathematics.math}
)
"""The rewards that a recipe may name."""

SHOWN = 200  # characters of what was paid, where it is no number


def reward(name: str) -> RewardFunction:
    """A row of ``REWARDS``, or a function of your own as ``package.module:function``.

    Raises:
        ConfigError: there is none of that name, or its module cannot be imported.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if colon:
        return _imported(module, function)
    known = ", ".join(REWARDS)
    raise ConfigError(
        f"no reward is named {name!r}: use {known}, or package.module:function{did_you_mean(name, REWARDS)}"
    )


def _imported(module: str, function: str) -> RewardFunction:
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the module is the user's, and may fail in any way while it is imported
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"reward {module}:{function} cannot be imported ({what}): is it on PYTHONPATH?") from error
    imported = getattr(found, function, None)
    if not callable(imported):
        near = did_you_mean(function, (name for name in vars(found) if callable(getattr(found, name))))
        raise ConfigError(f"module {module} has no function {function!r} to use as a reward{near}")
    scored: RewardFunction = imported
    return scored


def is_awaited(reward: RewardFunction) -> TypeGuard[AwaitedReward]:
    """Whether ``reward`` is a coroutine function, or an object that is called as one."""
    return inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__)


async def scored(name: str, reward: RewardFunction, reply: str, task: Task) -> dict[str, float]:
    """The components of what ``reward`` pays, whether it has to be waited for or not.

    Raises:
        EnvironmentFault: it raised, or paid something that is not a finite number.
    """
    if not is_awaited(reward):
        return breakdown(name, reward, reply, task)
    try:
        paid = await reward(reply, task)
    except Exception as error:  # as in ``breakdown``; who stops waiting is no fault, and passes
        raise _raised(name, task, error) from error
    return _components(name, paid, task)


def breakdown(name: str, reward: RewardFunction, reply: str, task: Task) -> dict[str, float]:
    """The components of what a plain ``reward`` pays; a plain number is one component, under the reward's name.

    Raises:
        EnvironmentFault: it raised, or paid something that is not a finite number.
    """
    try:
        paid = reward(reply, task)
    except Exception as error:  # a reward may be the user's own, and whatever it raises is its fault, never a zero
        raise _raised(name, task, error) from error
    return _components(name, paid, task)


def _raised(name: str, task: Task, error: Exception) -> EnvironmentFault:
    return EnvironmentFault(f"reward {name} raised on task {task.id}: {type(error).__name__}: {error}")


def _components(name: str, paid: object, task: Task) -> dict[str, float]:
    components: Mapping[str, Any] = paid if isinstance(paid, Mapping) else {name: paid}
    if not components:
        raise EnvironmentFault(f"reward {name} paid no component on task {task.id}: it must pay at least one")
    found = {}
    for part, value in components.items():
        try:
            found[str(part)] = finite_number(value)
        except ValueError as error:
            what = str(error) if part == name else f"{error} as {part}"
            raise EnvironmentFault(
                f"reward {name} paid {what} on task {task.id}: it must be a finite number"
            ) from error
    return found


def finite_number(value: object) -> float:
    """``value`` as a floating-point number.

    Raises:
        ValueError: it is no finite one; its text says what it is.
    """
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError as error:
        raise ValueError("a number that is too large") from error
    if not math.isfinite(number):
        raise ValueError(f"{value!r}"[:SHOWN])
    return number
