"""A corpus made here: a repository in which mistakes were made, reported and mended, and its tracker's export."""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from fettle.config.issues import Corpus
from fettle.errors import DataError
from fettle.issues.git import git
from fettle.issues.mutations import Mutation, mutations
from fettle.issues.specimens import PURPOSES, SPECIMENS
from fettle.sandbox import Sandbox, Value

BEGAN = datetime(2025, 1, 6, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
PACKAGE = "parts"
SECONDS = 1.0
"""Of one call, when it is looked for what a mistake changes."""
RIGHT, WRONG = 2, 3
"""Examples that a problem's tests have, at most: of those that go on as they did, and of those that are mended."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A mistake in one function, with examples of what it changes and what it leaves."""

    function: Callable[..., Any]
    mutation: Mutation
    wrong: tuple[tuple[Any, ...], ...]
    right: tuple[tuple[Any, ...], ...]
    said: tuple[str, ...]
    """For each wrong example what came instead, in words."""


@dataclass(frozen=True, slots=True)
class Change:
    """One commit: its message, its author, and the files that it leaves."""

    message: str
    files: dict[str, str]
    author: str = "Ada <ada@example.com>"


async def flaws(
    box: Sandbox, specimens: Mapping[Callable[..., Any], Sequence[tuple[Any, ...]]] = SPECIMENS
) -> list[Flaw]:
    """Every mistake that can be told by the examples of its function.

    Raises:
        SandboxError: the sandbox could not do its work.
    """
    found = []
    for function, examples in specimens.items():
        expected = [function(*arguments) for arguments in examples]
        for mutation in mutations(inspect.getsource(function)):
            replies = await box.calls(mutation.source, function.__name__, examples, seconds=SECONDS)
            right = [reply == Value(value) for reply, value in zip(replies, expected, strict=True)]
            wrong = tuple(example for example, same in zip(examples, right, strict=True) if not same)
            kept = tuple(example for example, same in zip(examples, right, strict=True) if same)
            said = tuple(_said(reply) for reply, same in zip(replies, right, strict=True) if not same)
            if wrong and kept:
                found.append(Flaw(function, mutation, wrong, kept, said))
    return found


def write_corpus(folder: Path, settings: Corpus, found: Sequence[Flaw]) -> int:
    """Write a repository of so many problems, and ``issues.json`` beside it: how many commits it has.

    Raises:
        DataError: the folder is there already, or fewer problems can be made.
    """
    if folder.exists():
        raise DataError(f"{folder} is there already: name a folder that is not")
    rng = Random(f"corpus/{settings.seed}")
    pairs = [(flaw, purpose) for flaw in found for purpose in PURPOSES]
    if settings.problems > len(pairs):
        raise DataError(f"{settings.problems} problems were asked for, and {len(pairs)} can be made: ask for fewer")
    chosen = rng.sample(pairs, settings.problems)
    changes = list(_history(chosen, rng))
    repository = folder / "repository"
    repository.mkdir(parents=True)
    git(["init", "-q", "-b", "main"], folder=repository)
    git(["fast-import", "--quiet"], folder=repository, given="".join(_stream(changes)))
    git(["reset", "-q", "--hard", "main"], folder=repository)
    export = [_issue(number, flaw, purpose) for number, (flaw, purpose) in enumerate(chosen, 1)]
    (folder / "issues.json").write_text(json.dumps(export, indent=1) + "\n")
    return len(changes)


def _history(chosen: Sequence[tuple[Flaw, str]], rng: Random) -> Iterator[Change]:
    """What is added and later mended, in an order by chance, and between them what mends nothing."""
    yield Change("Begin", {f"{PACKAGE}/__init__.py": "", "README.md": "# Parts\n"})
    open_: list[int] = []
    left = list(range(len(chosen), 0, -1))
    while left or open_:
        if left and (len(open_) < 2 or rng.random() < 0.5):
            number = left.pop()
            open_.append(number)
            yield _added(number, *chosen[number - 1])
        else:
            number = open_.pop(rng.randrange(len(open_)))
            yield _mended(number, *chosen[number - 1])
        if rng.random() < 0.2:
            yield rng.choice(_NOISE)(rng)


def _added(number: int, flaw: Flaw, purpose: str) -> Change:
    name = _name(flaw, purpose)
    tests = _tests(number, flaw, purpose, flaw.right[:RIGHT])
    program = {_module(number, name): _renamed(flaw.mutation.source, flaw, name)}
    return Change(f"Add {name}", {**program, f"tests/test_{_stem(number, name)}.py": tests})


def _mended(number: int, flaw: Flaw, purpose: str) -> Change:
    name = _name(flaw, purpose)
    tests = _tests(number, flaw, purpose, (*flaw.right[:RIGHT], *flaw.wrong[:WRONG]))
    program = {_module(number, name): _renamed(inspect.getsource(flaw.function), flaw, name)}
    return Change(f"Fix {name} (closes #{number})", {**program, f"tests/test_{_stem(number, name)}.py": tests})


def _tests(number: int, flaw: Flaw, purpose: str, examples: Sequence[tuple[Any, ...]]) -> str:
    name = _name(flaw, purpose)
    lines = [f"from {PACKAGE}.{_stem(number, name)} import {name}\n"]
    for arguments in examples:
        at = flaw.right.index(arguments) if arguments in flaw.right else len(flaw.right) + flaw.wrong.index(arguments)
        call = f"{name}({', '.join(map(repr, arguments))})"
        lines.append(f"\n\ndef test_example_{at}():\n    assert {call} == {flaw.function(*arguments)!r}\n")
    return "".join(lines)


def _issue(number: int, flaw: Flaw, purpose: str) -> dict[str, Any]:
    """As GitHub tells it."""
    name = _name(flaw, purpose)
    arguments = ", ".join(map(repr, flaw.wrong[0]))
    began = BEGAN + number * HOUR
    return {
        "number": number,
        "title": f"{name} is wrong for {arguments}",
        "body": f"`{name}({arguments})` {flaw.said[0]} and should be `{flaw.function(*flaw.wrong[0])!r}`.",
        "state": "closed",
        "state_reason": "completed",
        "labels": [{"name": "bug"}],
        "user": {"login": "eve"},
        "created_at": began.isoformat(),
        "updated_at": began.isoformat(),
        "closed_at": (began + HOUR).isoformat(),
    }


def _name(flaw: Flaw, purpose: str) -> str:
    return f"{flaw.function.__name__}_of_{purpose}"


def _stem(number: int, name: str) -> str:
    return f"{name}_{number}"


def _module(number: int, name: str) -> str:
    return f"{PACKAGE}/{_stem(number, name)}.py"


def _renamed(source: str, flaw: Flaw, name: str) -> str:
    return re.sub(rf"\b{flaw.function.__name__}\b", name, source)


def _said(reply: object) -> str:
    if isinstance(reply, Value):
        return f"gives `{reply.value!r}`"
    kind = getattr(reply, "type", "")
    return f"raises {kind}" if kind else "does not end"


def _words(rng: Random) -> Change:
    return Change("Say more of it", {"README.md": f"# Parts\n\nThere are {rng.randrange(10**6)} of them.\n"})


def _version(rng: Random) -> Change:
    author = "dependabot[bot] <bot@example.com>"
    return Change("Fix versions of what is needed", {f"{PACKAGE}/version.py": f"V = {rng.randrange(10**6)}\n"}, author)


def _data(rng: Random) -> Change:
    return Change("Fix the table", {"table.csv": f"{rng.randrange(10**6)},1\n"})


_NOISE = (_words, _version, _data)


def _stream(changes: Sequence[Change]) -> Iterator[str]:
    """The commits as ``git fast-import`` reads them."""
    for at, change in enumerate(changes):
        when = f"{int((BEGAN + at * HOUR).timestamp())} +0000"
        yield f"commit refs/heads/main\nauthor {change.author} {when}\ncommitter Ada <ada@example.com> {when}\n"
        yield f"data {len(change.message.encode())}\n{change.message}\n"
        for path, text in change.files.items():
            yield f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n"
