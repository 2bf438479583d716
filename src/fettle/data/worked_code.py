"""Answers to problems whose answer is code: the right program, or by a slip that of another problem."""

from collections.abc import Iterator, Sequence
from random import Random

from fettle.data.conversations import Conversation
from fettle.errors import DataError
from fettle.randomness import key
from fettle.types import Message, Task


def programs(tasks: Sequence[Task], *, slips: float, seed: int) -> Iterator[Conversation]:
    """Each task's prompt and a program in its fence; about a share ``slips`` of them answers another task.

    The other asks for a function of the same kind of thing: its question is the same up to the colon.

    Raises:
        DataError: a task holds no right answer.
    """
    alike: dict[str, list[Task]] = {}
    for task in tasks:
        alike.setdefault(_kind(task), []).append(task)
    for index, task in enumerate(tasks):
        rng = Random(key(seed, "program", index))
        shown = rng.choice(alike[_kind(task)]) if rng.random() < slips else task
        yield (*task.prompt, Message("assistant", fenced(_answer(shown))))


def fenced(code: str) -> str:
    """Code as an answer that can be graded.

    >>> print(fenced("print(1)"))
    ```python
    print(1)
    ```
    """
    return f"```python\n{code.rstrip()}\n```"


def _kind(task: Task) -> str:
    return task.prompt[-1].content.partition(":")[0]


def _answer(task: Task) -> str:
    answer = task.data.get("answer")
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(f"task {task.id} of {task.source} has no right answer to be shown: use made problems")
    return answer
