"""Episodes for people to read, as a run folder keeps them: one JSON object a line, one file an evaluation."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fettle.errors import DataError
from fettle.tracking.atomic import write_atomically
from fettle.tracking.base import Transcript
from fettle.tracking.folder import RunFolder
from fettle.types import Message, ToolCall


@dataclass(frozen=True, slots=True)
class Search:
    """Which transcripts are looked for; what is None or empty is not looked at."""

    min_reward: float | None = None
    max_reward: float | None = None
    text: str = ""
    """In what anybody says or calls, in the task's name, the player's, or the ending; in either case."""

    def finds(self, transcript: Transcript) -> bool:
        """Whether it is one of them."""
        if self.min_reward is not None and transcript.reward < self.min_reward:
            return False
        if self.max_reward is not None and transcript.reward > self.max_reward:
            return False
        wanted = self.text.casefold()
        return not wanted or any(wanted in part.casefold() for part in _parts(transcript))


def _parts(transcript: Transcript) -> Iterator[str]:
    yield from (transcript.title, transcript.player, transcript.ending, transcript.group)
    for message in transcript.messages:
        yield message.content
        yield from (part for call in message.tool_calls for part in (call.name, call.arguments))


def write_transcripts(folder: RunFolder, step: int, transcripts: Sequence[Transcript]) -> None:
    """Leave every episode of the evaluation after ``step`` steps.

    Raises:
        StorageError: they could not be written.
    """
    folder.evaluations.mkdir(exist_ok=True)
    lines = (json.dumps(_row(transcript)) + "\n" for transcript in transcripts)
    write_atomically(folder.evaluations / f"step-{step:06d}.jsonl", "".join(lines))


def read_transcripts(folder: RunFolder) -> Iterator[tuple[int, Transcript]]:
    """Every episode of every evaluation, with the steps that were done before it.

    Raises:
        DataError: a line is something else.
    """
    for path in sorted(folder.evaluations.glob("step-*.jsonl")):
        step = int(path.stem.removeprefix("step-"))
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                yield step, _transcript(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{path}:{number}: is no episode ({error!r}): take the file away") from error


def _row(transcript: Transcript) -> dict[str, Any]:
    return {
        "task": transcript.title,
        "group": transcript.group,
        "player": transcript.player,
        "reward": transcript.reward,
        "components": dict(transcript.components),
        "ending": transcript.ending,
        "note": transcript.note,
        "messages": [asdict(message) for message in transcript.messages],
    }


def _transcript(row: Mapping[str, Any]) -> Transcript:
    return Transcript(
        title=row["task"],
        messages=tuple(map(_message, row["messages"])),
        reward=float(row["reward"]),
        components=dict(row["components"]),
        note=row["note"],
        ending=row["ending"],
        player=row["player"],
        group=row["group"],
    )


def _message(row: Mapping[str, Any]) -> Message:
    return Message(**{**row, "tool_calls": tuple(ToolCall(**call) for call in row["tool_calls"])})
