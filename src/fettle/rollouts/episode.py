"""One episode: a policy and an environment take turns."""

import asyncio
import math
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, TypeVar

from fettle.chat import Template
from fettle.config import USUAL_LIMITS, Limits, SamplingParams
from fettle.engine import Sampler
from fettle.environments import Environment, Observation, StepResult
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
    try:
        first = await answered(environment.reset(task), Observation, limits)
        side = Conversation(task, first, sampler=sampler, template=template, params=params, limits=limits)
        while True:
            action = await side.reply()
            if action is None:
                return side.trajectory(group=group, ending="context")
            result = await answered(environment.step(action), StepResult, limits)
            side.earned(_checked(result))
            side.measured.update(result.measured)
            ending = "environment" if result.truncated else "" if result.terminated else side.limit()
            if ending or result.terminated:
                return side.trajectory(group=group, ending=ending)
            side.heard(result.messages)
    except EnvironmentFault as fault:
        return Failed(task, fault.message, group)
    finally:
        await environment.close()


async def answered(call: Awaitable[Answer], kind: type[Answer], limits: Limits) -> Answer:
    """What an environment answers, in the time it has for that.

    Raises:
        EnvironmentFault: it raised, took too long, or answered with something else than ``kind``.
    """
    try:
        async with asyncio.timeout(limits.step_seconds):
            found = await call
    except FettleError:
        raise
    except TimeoutError as error:
        raise EnvironmentFault(
            f"the environment did not answer within {limits.step_seconds:g} s: raise limits.step_seconds, or mend it"
        ) from error
    except Exception as error:  # an environment may be anybody's, and whatever it raises is its fault
        raise EnvironmentFault(f"the environment raised {type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        raise EnvironmentFault(
            f"the environment answered with {type(found).__name__}, and not with {kind.__name__}: mend it"
        )
    return found


def _checked(result: StepResult) -> dict[str, float]:
    """The components of a step's reward.

    Raises:
        EnvironmentFault: one is not a finite number, or they do not sum to the reward.
    """
    whole = finite({"reward": result.reward})
    parts = finite(result.components or (whole if result.reward else {}))
    if not math.isclose(sum(parts.values()), result.reward, rel_tol=1e-6, abs_tol=1e-6):
        raise EnvironmentFault(
            f"the environment paid {result.reward:g}, and its components sum to {sum(parts.values()):g}: mend it"
        )
    return parts


def finite(components: Mapping[str, Any]) -> dict[str, float]:
    """What was paid, part by part.

    Raises:
        EnvironmentFault: a part is not a finite number.
    """
    for name, value in components.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise EnvironmentFault(f"the environment paid {value!r} as {name}: it must be a finite number")
    return {name: float(value) for name, value in components.items()}


def shifted(trajectory: Trajectory, amount: float, component: str) -> Trajectory:
    """The trajectory with ``amount`` added to its last turn's reward, under a name of its own."""
    last = trajectory.turns[-1]
    turns = (*trajectory.turns[:-1], replace(last, reward=last.reward + amount))
    return replace(trajectory, turns=turns, components={**trajectory.components, component: amount})
