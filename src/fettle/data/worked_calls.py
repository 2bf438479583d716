"""Calculations worked out by calling a tool, or guessed without."""

import json
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from fettle.data.conversations import ToolConversation
from fettle.data.worked_sums import expression_of
from fettle.randomness import key
from fettle.types import Message, Task, ToolCall, ToolSpec

FIRST_CALL = "call_0_0"


def worked_calls(
    tasks: Iterable[Task], tools: Sequence[ToolSpec], *, calls: str, guesses: float, seed: int
) -> Iterator[ToolConversation]:
    """Each task's prompt, a call of the tool ``calls`` with its expression, the result, and the answer in its tags.

    About a share ``guesses`` of them call nothing, and give a number of the right length that is wrong.

    Raises:
        DataError: a task holds no ``expression``.
    """
    for index, task in enumerate(tasks):
        rng = Random(key(seed, "call", index))
        expression, answer = expression_of(task), str(task.data["answer"])
        call = ToolCall(FIRST_CALL, calls, json.dumps({"expression": expression}))
        said = [Message("assistant", "", (call,)), Message("tool", answer, tool_call_id=FIRST_CALL)]
        guessed = rng.random() < guesses
        if guessed:
            said, answer = [], _wrong(answer, rng)
        yield ToolConversation([*task.prompt, *said, Message("assistant", f"<answer>{answer}</answer>")], tools)


def _wrong(answer: str, rng: Random) -> str:
    """Another number of as many digits, with the same sign."""
    sign, digits = answer[: answer.startswith("-")], answer.lstrip("-")
    low, high = (0 if len(digits) == 1 else 10 ** (len(digits) - 1)), 10 ** len(digits) - 1
    guess = rng.randint(low, high - 1)
    return f"{sign}{guess + (guess >= int(digits))}"
