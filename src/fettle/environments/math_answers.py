"""Expected answers of mathematics in files, checked before a run begins: a problem that nobody can solve is refused."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import cast

from fettle.config import SandboxSettings
from fettle.errors import ConfigError, DataError, ScorerError, ScorerTimeout
from fettle.rewards.exact import same
from fettle.rewards.matching import expected
from fettle.sandbox import Sandbox, isolation, sandbox
from fettle.types import Task

UNREADABLE = "?"
"""An answer to nothing: where the exact comparison does not call it wrong, it does not know what is expected."""
READABLE = "fettle.rewards.symbolic:readable"
TOGETHER = 64  # answers that share a process
PATIENCE = 30.0
"""Seconds for so many answers: more than a comparison of a run has, since a busy machine is no fault of a file."""


def check_readable(tasks: Mapping[str, Task]) -> None:
    """Refuses answers that are no answers. ``tasks`` are named by their places.

    Raises:
        DataError: one is neither a text nor a number, is empty, or is too long to be compared.
    """
    for place, task in tasks.items():
        try:
            answer = expected(task)
        except DataError as error:
            raise DataError(f"{place}: {error.message}") from error
        if same(answer, answer) is not True:
            raise DataError(f"{place}: the answer {answer[:40]!r} is empty, or too long to be compared: mend it")


def symbols(tasks: Mapping[str, Task], settings: SandboxSettings) -> Sandbox | None:
    """Where the expressions among the answers are compared; None where all answers are compared exactly.

    Raises:
        DataError: an expression cannot be read, so that no reply could ever be right.
        ConfigError: math-verify is not installed, or nothing here isolates it.
    """
    places: dict[str, str] = {}
    for place, task in tasks.items():
        places.setdefault(expected(task), place)
    answers = [answer for answer in places if same(answer, UNREADABLE) is None]
    if not answers:
        return None
    if find_spec("math_verify") is None:
        raise ConfigError(
            f"{places[answers[0]]}: answers like {answers[0]!r} are compared by math-verify, and that is not installed:"
            " pip install 'fettle[math]', or in a math environment set problems.checker to exact, which takes other"
            " writings for wrong"
        )
    isolation(settings)
    for start in range(0, len(answers), TOGETHER):
        for answer in _unread(tuple(answers[start : start + TOGETHER]), settings):
            raise DataError(
                f"{places[answer]}: the answer {answer!r} cannot be read, neither exactly nor by math-verify, so no"
                " reply could be right: write it otherwise"
            )
    return sandbox(settings)


@lru_cache(maxsize=1024)
def _unread(answers: tuple[str, ...], settings: SandboxSettings) -> tuple[str, ...]:
    """Those that are not even equivalent to themselves, or cannot be compared in the time there is."""
    try:
        told = sandbox(settings).returned(READABLE, list(answers), seconds=PATIENCE)
    except (ScorerError, ScorerTimeout):
        half = len(answers) // 2
        return _unread(answers[:half], settings) + _unread(answers[half:], settings) if half else answers
    return tuple(answer for answer, read in zip(answers, cast(list[bool], told), strict=True) if not read)
