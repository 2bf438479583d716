"""Worked solutions to problems of mathematics, right or with the mistake that their maker thought of."""

from collections.abc import Iterable, Iterator
from random import Random

from fettle.data.conversations import Conversation
from fettle.errors import DataError
from fettle.randomness import key
from fettle.types import Message, Task


def worked_mathematics(tasks: Iterable[Task], *, slips: float, seed: int) -> Iterator[Conversation]:
    """Each task's prompt and a solution of it; about a share ``slips`` of them is wrong.

    Raises:
        DataError: a task holds no worked solution.
    """
    for index, task in enumerate(tasks):
        slip = Random(key(seed, "solution", index)).random() < slips
        yield (*task.prompt, Message("assistant", _solution(task, "wrong_" if slip else "")))


def _solution(task: Task, prefix: str) -> str:
    work, answer = task.data.get(f"{prefix}work"), task.data.get(f"{prefix}answer")
    if not isinstance(work, str) or not isinstance(answer, str):
        raise DataError(f"a task of {task.source} holds no worked solution: use made problems of a math environment")
    return f"{work}\n<answer>{answer}</answer>"
