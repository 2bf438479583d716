"""Groups of earlier steps to learn from again, and how they are written down without loss."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from random import Random
from typing import Any

from fettle.errors import DataError
from fettle.randomness import key
from fettle.rollouts.group import Group
from fettle.types import Completion, Failed, Message, Task, ToolCall, Trajectory, Turn

Fields = dict[str, Any]


class Replay:
    """The newest groups, ``capacity`` of them at most, and none older than ``max_age`` policy versions.

    A group is as old as the oldest policy that drew a token in it. What is drawn depends on the seed, the step and
    the groups that are there, and on nothing else: a buffer that was written down and read back draws the same.
    """

    def __init__(self, *, capacity: int, max_age: int | None, seed: int) -> None:
        self._capacity = capacity
        self._max_age = max_age
        self._seed = seed
        self._groups: list[Group] = []

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, groups: Iterable[Group]) -> None:
        """Keep the groups, and let those that came first go where there are too many.

        A group of which no episode came to an end holds nothing to learn from, and is not kept.
        """
        self._groups = [*self._groups, *(group for group in groups if group.trajectories)][-self._capacity :]

    def sample(self, n: int, *, step: int, policy_version: int) -> list[Group]:
        """``n`` different groups, or as many as there are, once those are dropped that are too old by now."""
        if self._max_age is not None:
            oldest = policy_version - self._max_age
            self._groups = [group for group in self._groups if _version(group) >= oldest]
        return Random(key(self._seed, "replay", step)).sample(self._groups, min(n, len(self._groups)))

    def rows(self) -> list[Fields]:
        """All that is kept, in order, as JSON objects.

        Raises:
            DataError: a task holds something that is not JSON.
        """
        return [group_row(group) for group in self._groups]

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep what :meth:`rows` gave, and nothing else.

        Raises:
            DataError: a row is not a group.
        """
        self._groups = []
        self.add(map(group_of, rows))


def group_row(group: Group) -> Fields:
    """A group as a JSON object.

    Raises:
        DataError: the task holds something that is not JSON.
    """
    return {
        "task": _task_row(group.task),
        "trajectories": [trajectory_row(trajectory) for trajectory in group.trajectories],
        "failures": [{"reason": failed.reason, "group": failed.group} for failed in group.failures],
    }


def group_of(row: Mapping[str, Any]) -> Group:
    """The group that :func:`group_row` wrote.

    Raises:
        DataError: the row is something else.
    """
    try:
        task = _task_of(row["task"])
        failures = tuple(Failed(task, failed["reason"], failed["group"]) for failed in row["failures"])
        return Group(task, tuple(trajectory_of(fields) for fields in row["trajectories"]), failures)
    except (KeyError, TypeError) as error:
        raise DataError(f"a replayed group cannot be read ({error!r}): start without it") from error


def trajectory_row(trajectory: Trajectory) -> Fields:
    """A trajectory as a JSON object; numbers come back to the bit, and a tuple within a task's data as a list.

    Raises:
        DataError: the task holds something that is not JSON.
    """
    return {
        "task": _task_row(trajectory.task),
        "turns": [
            {
                "observation": list(turn.observation),
                "completion": _completion_row(turn.completion),
                "reward": turn.reward,
            }
            for turn in trajectory.turns
        ],
        "messages": [_message_row(message) for message in trajectory.messages],
        "terminated": trajectory.terminated,
        "truncated": trajectory.truncated,
        "components": dict(trajectory.components),
        "temperature": trajectory.temperature,
        "group": trajectory.group,
        "measured": dict(trajectory.measured),
        "ending": trajectory.ending,
        "player": trajectory.player,
    }


def trajectory_of(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory that :func:`trajectory_row` wrote.

    Raises:
        DataError: the row is something else.
    """
    try:
        turns = ((turn["observation"], Completion(**turn["completion"]), turn["reward"]) for turn in row["turns"])
        return Trajectory(
            task=_task_of(row["task"]),
            turns=tuple(Turn(*turn) for turn in turns),
            messages=tuple(map(_message_of, row["messages"])),
            terminated=row["terminated"],
            truncated=row["truncated"],
            components=row["components"],
            temperature=row["temperature"],
            group=row["group"],
            measured=row["measured"],
            ending=row["ending"],
            player=row["player"],
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"a trajectory cannot be read ({error!r}): start without it") from error


def _version(group: Group) -> int:
    return min(trajectory.policy_version for trajectory in group.trajectories)


def _task_row(task: Task) -> Fields:
    try:
        data = json.loads(json.dumps(dict(task.data), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"task {task.id} of {task.source} holds what is not JSON, and cannot be kept: {error}"
        ) from error
    return {"prompt": [_message_row(message) for message in task.prompt], "data": data, "source": task.source}


def _task_of(row: Mapping[str, Any]) -> Task:
    return Task(tuple(map(_message_of, row["prompt"])), row["data"], row["source"])


def _message_row(message: Message) -> Fields:
    return asdict(message)


def _message_of(row: Mapping[str, Any]) -> Message:
    return Message(**{**row, "tool_calls": tuple(ToolCall(**call) for call in row["tool_calls"])})


def _completion_row(completion: Completion) -> Fields:
    return {
        "tokens": list(completion.tokens),
        "logprobs": list(completion.logprobs),
        "stop_reason": completion.stop_reason,
        "policy_version": completion.policy_version,
        "untempered_logprobs": completion.untempered_logprobs,
    }
