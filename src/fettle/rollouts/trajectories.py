"""Trajectories as rows of JSON: written without loss, read back, chosen from, and told as OpenAI's messages."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fettle.errors import DataError
from fettle.rollouts.group import Group
from fettle.rows import openai_message
from fettle.tracking.base import Transcript
from fettle.types import Completion, Failed, Message, Span, Task, ToolCall, Trajectory, Turn

Fields = dict[str, Any]

SCHEMA = "fettle.trajectory"
VERSION = 1
"""Goes up when a row no longer says what it said."""

FINISHED = "finished"
"""What the ending of an episode is called that came to its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A trajectory of a file, with the name of its episode; the sides of one game share theirs."""

    episode: str
    trajectory: Trajectory


def line(trajectory: Trajectory, *, episode: str = "") -> bytes:
    """A line of a file of trajectories.

    Raises:
        DataError: the task holds something that is not JSON.
    """
    row = {"schema": SCHEMA, "version": VERSION, "episode": episode, **trajectory_row(trajectory)}
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def recorded(path: Path) -> Iterator[Recorded]:
    """The trajectories of a file, in order; a last line that is being written, or was cut short, is passed over.

    Raises:
        DataError: the file cannot be read, or a line is something else.
    """
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    yield _recorded(text)
                except DataError as error:
                    if not text.endswith(b"\n"):
                        return
                    raise DataError(f"{path}:{number}: {error.message}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give a file of trajectories") from error


def _recorded(text: bytes) -> Recorded:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise DataError(f"is not JSON ({error}): give a file that was collected") from error
    if not isinstance(row, dict) or row.get("schema") != SCHEMA:
        raise DataError(f"is no trajectory, for its schema is not {SCHEMA}: give a file that was collected")
    if row.get("version") != VERSION:
        raise DataError(f"is of version {row.get('version')!r}, and this reads {VERSION}: collect it anew")
    return Recorded(str(row.get("episode", "")), trajectory_of(row))


# --- rows -----------------------------------------------------------------------------------------


def trajectory_row(trajectory: Trajectory) -> Fields:
    """A trajectory as a JSON object; numbers come back to the bit, and a tuple within a task's data as a list.

    Raises:
        DataError: the task holds something that is not JSON.
    """
    return {
        "task": task_row(trajectory.task),
        "turns": [
            {
                "observation": list(turn.observation),
                "completion": _completion_row(turn.completion),
                "reward": _said(turn.reward),
            }
            for turn in trajectory.turns
        ],
        "messages": [asdict(message) for message in trajectory.messages],
        "terminated": trajectory.terminated,
        "truncated": trajectory.truncated,
        "components": {name: _said(value) for name, value in trajectory.components.items()},
        "temperature": _said(trajectory.temperature),
        "group": trajectory.group,
        "measured": {name: _said(value) for name, value in trajectory.measured.items()},
        "ending": trajectory.ending,
        "player": trajectory.player,
    }


def trajectory_of(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory that :func:`trajectory_row` wrote.

    Raises:
        DataError: the row is something else.
    """
    try:
        turns = tuple(
            Turn(_tokens(turn["observation"]), _completion_of(turn["completion"]), _read(turn["reward"]))
            for turn in row["turns"]
        )
        if not turns:
            raise ValueError("it has no turns")
        return Trajectory(
            task=task_of(row["task"]),
            turns=turns,
            messages=tuple(map(_message_of, row["messages"])),
            terminated=row["terminated"],
            truncated=row["truncated"],
            components={name: _read(value) for name, value in row["components"].items()},
            temperature=_read(row["temperature"]),
            group=row["group"],
            measured={name: _read(value) for name, value in row["measured"].items()},
            ending=row["ending"],
            player=row["player"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"a trajectory cannot be read ({error!r}): start without it") from error


def group_row(group: Group) -> Fields:
    """A group as a JSON object.

    Raises:
        DataError: the task holds something that is not JSON.
    """
    return {
        "task": task_row(group.task),
        "trajectories": [trajectory_row(trajectory) for trajectory in group.trajectories],
        "failures": [{"reason": failed.reason, "group": failed.group} for failed in group.failures],
    }


def group_of(row: Mapping[str, Any]) -> Group:
    """The group that :func:`group_row` wrote.

    Raises:
        DataError: the row is something else.
    """
    try:
        task = task_of(row["task"])
        failures = tuple(Failed(task, failed["reason"], failed["group"]) for failed in row["failures"])
        return Group(task, tuple(trajectory_of(fields) for fields in row["trajectories"]), failures)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"a replayed group cannot be read ({error!r}): start without it") from error


def task_row(task: Task) -> Fields:
    """A task as a JSON object.

    Raises:
        DataError: it holds something that is not JSON.
    """
    try:
        data = json.loads(json.dumps(dict(task.data), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"task {task.id} of {task.source} holds what is not JSON, and cannot be kept: {error}"
        ) from error
    return {"prompt": [asdict(message) for message in task.prompt], "data": data, "source": task.source}


def task_of(row: Mapping[str, Any]) -> Task:
    """The task that :func:`task_row` wrote."""
    return Task(tuple(map(_message_of, row["prompt"])), row["data"], row["source"])


def _message_of(row: Mapping[str, Any]) -> Message:
    return Message(**{**row, "tool_calls": tuple(ToolCall(**call) for call in row["tool_calls"])})


def _completion_row(completion: Completion) -> Fields:
    untempered, top = completion.untempered_logprobs, completion.top
    return {
        "tokens": list(completion.tokens),
        "logprobs": list(map(_said, completion.logprobs)),
        "stop_reason": completion.stop_reason,
        "policy_version": completion.policy_version,
        "untempered_logprobs": None if untempered is None else list(map(_said, untempered)),
        "top": None if top is None else [[[token, _said(value)] for token, value in place] for place in top],
        **({"spans": list(map(list, completion.spans))} if len(completion.spans) > 1 else {}),
    }


def _completion_of(row: Mapping[str, Any]) -> Completion:
    untempered, top = row["untempered_logprobs"], row["top"]
    return Completion(
        tokens=_tokens(row["tokens"]),
        logprobs=list(map(_read, row["logprobs"])),
        stop_reason=row["stop_reason"],
        policy_version=row["policy_version"],
        untempered_logprobs=None if untempered is None else list(map(_read, untempered)),
        top=None if top is None else [[(token, _read(value)) for token, value in place] for place in top],
        spans=tuple(Span(*span) for span in row.get("spans", ())),
    )


def _tokens(values: Sequence[int]) -> list[int]:
    if not all(isinstance(value, int) for value in values):
        raise TypeError("tokens are whole numbers")
    return list(values)


def _said(value: float) -> float | str:
    """A number as JSON has it, and by its name where JSON has none for it."""
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _read(value: float | str) -> float:
    return float(value) if isinstance(value, str) else value


# --- choosing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which trajectories are wanted; what is None is not looked at."""

    min_reward: float | None = None
    max_reward: float | None = None
    min_tokens: int | None = None
    """Of those that the policy drew."""
    max_tokens: int | None = None
    endings: frozenset[str] | None = None
    """Names of limits, and ``finished``."""

    def against(self, trajectory: Trajectory) -> str | None:
        """Why it is not wanted, in words; None where it is."""
        drawn, ending = trajectory.num_sampled, trajectory.ending or FINISHED
        reasons = (
            (self.min_reward is not None and trajectory.reward < self.min_reward, "earned too little"),
            (self.max_reward is not None and trajectory.reward > self.max_reward, "earned too much"),
            (self.min_tokens is not None and drawn < self.min_tokens, "are too short"),
            (self.max_tokens is not None and drawn > self.max_tokens, "are too long"),
            (self.endings is not None and ending not in self.endings, "ended otherwise"),
        )
        return next((reason for unwanted, reason in reasons if unwanted), None)


def transcript(trajectory: Trajectory) -> Transcript:
    """A trajectory for people to read."""
    expected = trajectory.task.data.get("answer")
    return Transcript(
        title=trajectory.task.id,
        messages=trajectory.messages,
        reward=trajectory.reward,
        components=trajectory.components,
        note=f"expected answer: {expected}" if expected is not None else "",
        ending=trajectory.ending,
        player=trajectory.player,
        group=trajectory.group,
    )


# --- telling others -------------------------------------------------------------------------------


def conversation_row(trajectory: Trajectory) -> Fields | None:
    """The conversation up to the policy's last word, as OpenAI's fine-tuning reads it; None where that cannot be.

    Data of type ``conversations`` are read from such rows.
    """
    last = max(place for place, message in enumerate(trajectory.messages) if message.role == "assistant")
    messages = trajectory.messages[: last + 1]
    return {"messages": list(map(openai_message, messages))} if _can_be_learned(messages) else None


def episode_row(trajectory: Trajectory) -> Fields | None:
    """The conversation with what it earned; None where it cannot be learned from.

    Data of type ``episodes`` are read from such rows.
    """
    told = conversation_row(trajectory)
    if told is None:
        return None
    about = {"task": trajectory.task.id, "environment": trajectory.task.source, "ending": trajectory.ending or FINISHED}
    return {**told, "reward": trajectory.reward, "metadata": about}


def _can_be_learned(messages: Sequence[Message]) -> bool:
    """Whether everybody says something, and whatever was meant as a call is one."""
    spoken = all(message.content.strip() or message.tool_calls for message in messages)
    return spoken and all(call.name for message in messages for call in message.tool_calls)
