"""One episode: a policy and an environment take turns."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from fettle.chat import Template
from fettle.config import USUAL_LIMITS, Limits, SamplingParams
from fettle.engine import Sampler
from fettle.environments import Environment, Observation, StepResult
from fettle.environments.answers import check_observation, check_step, paid
from fettle.errors import EnvironmentFault, FettleError
from fettle.rollouts.conversation import Conversation
from fettle.types import Failed, Task, Trajectory

Answer = TypeVar("Answer")


async def episode(
    task: Task,
    environment: Environment,
    *,
    sampler: Sampler,
    template: Template,
    params: SamplingParams,
    limits: Limits = USUAL_LIMITS,
    group: str = "",
) -> Trajectory | Failed:
    """Play ``task`` to its end, or to one of the ``limits``.

    ``params.seed`` names the episode. A fault of the environment makes the episode ``Failed``; a fault of the engine
    is raised.
    """
    played = _played(task, environment, sampler=sampler, template=template, params=params, limits=limits, group=group)
    return await outcome(task, played, environment.close, limits, group)


async def _played(
    task: Task,
    environment: Environment,
    *,
    sampler: Sampler,
    template: Template,
    params: SamplingParams,
    limits: Limits,
    group: str,
) -> Trajectory:
    first = await answered(environment.reset(task), Observation, limits)
    check_observation(first)
    side = Conversation(task, first, sampler=sampler, template=template, params=params, limits=limits)
    while True:
        action = await side.reply()
        if action is None:
            return side.trajectory(group=group, ending="context")
        result = await answered(environment.step(action), StepResult, limits)
        check_step(result)
        side.earned(paid(result))
        side.measured.update(result.measured)
        ending = "environment" if result.truncated else "" if result.terminated else side.limit()
        if ending or result.terminated:
            return side.trajectory(group=group, ending=ending)
        side.heard(result.messages)


async def outcome(
    task: Task, played: Awaitable[Answer], close: Callable[[], Awaitable[None]], limits: Limits, group: str
) -> Answer | Failed:
    """What was ``played``, after which the environment is closed; a fault of either is a ``Failed``.

    Whatever else is raised is raised once it is closed, however that went.
    """
    try:
        found: Answer | Failed = await played
    except EnvironmentFault as fault:
        found = Failed(task, fault.message, group)
    except BaseException:
        with suppress(EnvironmentFault):
            await answered(close(), object, limits)
        raise
    try:
        await answered(close(), object, limits)
    except EnvironmentFault as fault:
        return found if isinstance(found, Failed) else Failed(task, f"when it was closed, {fault.message}", group)
    return found


async def answered(call: Awaitable[Answer], kind: type[Answer], limits: Limits) -> Answer:
    """What an environment answers, in the time it has for that.

    Raises:
        EnvironmentFault: it raised, took too long, or answered with something else than ``kind``.
    """
    time = asyncio.timeout(limits.step_seconds)
    try:
        async with time:
            found = await call
    except FettleError:
        raise
    except Exception as error:  # an environment may be anybody's, and whatever it raises is its fault
        if time.expired():
            raise EnvironmentFault(
                f"the environment did not answer within {limits.step_seconds:g} s: raise limits.step_seconds, or mend"
                " it"
            ) from error
        raise EnvironmentFault(f"the environment raised {type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        raise EnvironmentFault(
            f"the environment answered with {type(found).__name__}, and not with {kind.__name__}: mend it"
        )
    return found


def shifted(trajectory: Trajectory, amount: float, component: str) -> Trajectory:
    """The trajectory with ``amount`` added to its last turn's reward, under a name of its own."""
    last = trajectory.turns[-1]
    turns = (*trajectory.turns[:-1], replace(last, reward=last.reward + amount))
    return replace(trajectory, turns=turns, components={**trajectory.components, component: amount})
