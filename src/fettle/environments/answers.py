"""What environments answer, checked: they may be anybody's, and whatever is wrong with an answer is their fault."""

import json
import math
from collections.abc import Mapping
from typing import get_args, get_type_hints

from fettle.environments.base import GameStep, Observation, StepResult
from fettle.errors import EnvironmentFault
from fettle.rewards import finite_number
from fettle.types import Message, ToolCall, ToolSpec

ROLES = get_args(get_type_hints(Message)["role"])
NEAR = 1e-6
"""By how much, absolute or relative, components may miss the reward that they sum to."""


def check_observation(first: Observation) -> None:
    """Refuses a beginning that is not made of messages and tools.

    Raises:
        EnvironmentFault: it is not.
    """
    _check_messages(first.messages)
    _check_all(first.tools, ToolSpec, "tools")
    for tool in first.tools:
        try:
            json.loads(tool.schema)
        except (TypeError, ValueError) as error:
            raise EnvironmentFault(
                f"the environment's tool {tool.name} has a schema that is no JSON: mend it"
            ) from error


def check_step(result: StepResult) -> None:
    """Refuses a step that says or measures something that cannot be; what it pays is looked at by :func:`paid`.

    Raises:
        EnvironmentFault: it does.
    """
    _check_messages(result.messages)
    finite(result.measured, "measured")


def check_game_step(step: GameStep) -> None:
    """Refuses a step of a game that says, pays or measures something that cannot be.

    Raises:
        EnvironmentFault: it does.
    """
    for what, named in (("heard", step.heard), ("components", step.components)):
        if not isinstance(named, Mapping):
            raise EnvironmentFault(f"the game's {what} are {_kind(named)}, and not by player: mend it")
    for messages in step.heard.values():
        _check_messages(messages)
    _check_all(step.turn, str, "players whose turn it is")
    finite(step.measured, "measured")


def paid(result: StepResult) -> dict[str, float]:
    """The components of a step's reward.

    Raises:
        EnvironmentFault: one is not a finite number, or they do not sum to the reward.
    """
    whole = finite({"reward": result.reward})
    parts = finite(result.components) or (whole if result.reward else {})
    if not math.isclose(sum(parts.values()), whole["reward"], rel_tol=NEAR, abs_tol=NEAR):
        raise EnvironmentFault(
            f"the environment paid {whole['reward']:g}, and its components sum to {sum(parts.values()):g}: mend it"
        )
    return parts


def finite(named: object, did: str = "paid") -> dict[str, float]:
    """Numbers by name, of what an environment ``did``.

    Raises:
        EnvironmentFault: they are something else, or one is not a finite number.
    """
    if not isinstance(named, Mapping):
        raise EnvironmentFault(f"the environment {did} {_kind(named)}, and not numbers by name: mend it")
    found = {}
    for name, value in named.items():
        try:
            found[str(name)] = finite_number(value)
        except ValueError as error:
            raise EnvironmentFault(f"the environment {did} {error} as {name}: it must be a finite number") from error
        if isinstance(value, bool) and did == "paid":
            raise EnvironmentFault(f"the environment {did} {value} as {name}: it must be a finite number")
    return found


def _check_messages(messages: object) -> None:
    _check_all(messages, Message, "messages")
    for message in messages:  # type: ignore[attr-defined]  # it was looked at in the line above
        if message.role not in ROLES:
            raise EnvironmentFault(
                f"the environment answered with a message of {message.role!r}: it must be of one of {', '.join(ROLES)}"
            )
        if not isinstance(message.content, str):
            raise EnvironmentFault(
                f"the environment answered with a message whose content is {_kind(message.content)}: it must be a text"
            )
        _check_all(message.tool_calls, ToolCall, "tool_calls")


def _check_all(found: object, kind: type, what: str) -> None:
    """Refuses what is no list of ``kind``."""
    if not isinstance(found, list | tuple) or not all(isinstance(each, kind) for each in found):
        raise EnvironmentFault(
            f"the environment's {what} are {_kind(found)}, and must be a list or a tuple of {kind.__name__}: mend it"
        )


def _kind(found: object) -> str:
    """What something is, in words."""
    inner = sorted({type(each).__name__ for each in found}) if isinstance(found, list | tuple) else []
    return f"a {type(found).__name__}" + (f" of {', '.join(inner)}" if inner else "")
