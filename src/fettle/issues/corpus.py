"""A corpus made here: a repository in which mistakes were made, reported and mended, and its tracker's export."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from fettle.config.issues import Corpus
from fettle.errors import DataError
from fettle.issues.git import git
from fettle.issues.mutations import Mutation, mutations
from fettle.issues.specimens import Arguments, Specimen, most_specimens, specimens
from fettle.randomness import key
from fettle.sandbox import Sandbox, Value

BEGAN = datetime(2025, 1, 6, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
PACKAGE = "parts"
SECONDS = 1.0
"""Of one call, when it is looked for what a mistake changes."""


@dataclass(frozen=True, slots=True)
class Example:
    """A call, what it gives where nothing is wrong, and what came of it with the mistake, in words."""

    arguments: Arguments
    value: Any
    said: str


@dataclass(frozen=True, slots=True)
class Flaw:
    """A mistake in one function, with the calls that it changes and those that it leaves."""

    specimen: Specimen
    mutation: Mutation
    wrong: tuple[Example, ...]
    right: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One commit: its message, its author, and the files that it leaves."""

    message: str
    files: dict[str, str]
    author: str = "Ada <ada@example.com>"
    number: int = 0
    """Of the problem that it brings or mends, if it does."""


async def flaws(box: Sandbox, settings: Corpus, *, told: Callable[[], object] = lambda: None) -> list[Flaw]:
    """One mistake in each of so many functions; ``told`` hears of each.

    Raises:
        DataError: there are fewer functions.
        SandboxError: the sandbox could not do its work.
    """
    if settings.problems > most_specimens():
        raise DataError(
            f"{settings.problems} problems were asked for, and {most_specimens()} can be made: ask for fewer"
        )

    async def flaw(number: int, specimen: Specimen) -> Flaw:
        found = await _flaw(box, specimen, Random(key(settings.seed, "corpus", "flaw", number)))
        told()
        return found

    chosen = specimens(Random(key(settings.seed, "corpus", "specimens")), settings.problems)
    return list(await asyncio.gather(*(flaw(number, specimen) for number, specimen in enumerate(chosen))))


async def _flaw(box: Sandbox, specimen: Specimen, rng: Random) -> Flaw:
    """The first mistake, in an order by chance, that some calls tell and others do not."""
    right = await box.calls(specimen.source, specimen.name, specimen.examples, seconds=SECONDS)
    possible = list(mutations(specimen.source))
    for mutation in rng.sample(possible, len(possible)):
        replies = await box.calls(mutation.source, specimen.name, specimen.examples, seconds=SECONDS)
        both: tuple[list[Example], list[Example]] = ([], [])
        for arguments, value, reply in zip(specimen.examples, right, replies, strict=True):
            assert isinstance(value, Value), (specimen.name, arguments)  # a specimen answers every call
            both[reply == value].append(Example(arguments, value.value, _said(reply)))
        if all(both):
            return Flaw(specimen, mutation, *map(tuple, both))
    raise AssertionError(f"no mistake in {specimen.name} is told by its examples")


def write_corpus(folder: Path, settings: Corpus, found: Sequence[Flaw]) -> int:
    """Write a repository of these problems, and ``issues.json`` beside it: how many commits it has.

    Raises:
        DataError: the folder is there already.
    """
    if folder.exists():
        raise DataError(f"{folder} is there already: name a folder that is not")
    changes = list(_history(found, Random(key(settings.seed, "corpus", "history"))))
    repository = folder / "repository"
    repository.mkdir(parents=True)
    git(["init", "-q", "-b", "main"], folder=repository)
    git(["remote", "add", "origin", f"https://example.com/{PACKAGE}/{folder.resolve().name}.git"], folder=repository)
    git(["fast-import", "--quiet"], folder=repository, given="".join(_stream(changes)))
    git(["reset", "-q", "--hard", "main"], folder=repository)
    moments: list[list[datetime]] = [[] for _ in found]  # at which each was brought, and at which it was mended
    for at, change in enumerate(changes):
        if change.number:
            moments[change.number - 1].append(BEGAN + at * HOUR)
    told = zip(found, moments, strict=True)
    export = [_issue(number, flaw, *when) for number, (flaw, when) in enumerate(told, 1)]
    (folder / "issues.json").write_text(json.dumps(export, indent=1) + "\n")
    return len(changes)


def _history(found: Sequence[Flaw], rng: Random) -> Iterator[Change]:
    """What is added and later mended, in an order by chance, and between them what mends nothing."""
    yield Change("Begin", {f"{PACKAGE}/__init__.py": "", "README.md": "# Parts\n"})
    open_: list[int] = []
    left = list(range(len(found), 0, -1))
    while left or open_:
        if left and (len(open_) < 2 or rng.random() < 0.5):
            number = left.pop()
            open_.append(number)
            flaw = found[number - 1]
            yield _change(f"Add {flaw.specimen.name}", number, flaw, flaw.mutation.source, flaw.right)
        else:
            number = open_.pop(rng.randrange(len(open_)))
            flaw = found[number - 1]
            message = f"Fix {flaw.specimen.name} (closes #{number})"
            yield _change(message, number, flaw, flaw.specimen.source, (*flaw.right, *flaw.wrong))
        if rng.random() < 0.2:
            yield rng.choice(_NOISE)(rng)


def _change(message: str, number: int, flaw: Flaw, program: str, examples: Sequence[Example]) -> Change:
    """A function, and a test of it for each example."""
    name = flaw.specimen.name
    stem = f"{name}_{number}"
    lines = [f"from {PACKAGE}.{stem} import {name}\n"]
    for example in examples:
        at = flaw.specimen.examples.index(example.arguments)
        lines.append(f"\n\ndef test_example_{at}():\n    assert {_call(name, example)} == {example.value!r}\n")
    files = {f"{PACKAGE}/{stem}.py": program, f"tests/test_{stem}.py": "".join(lines)}
    return Change(message, files, number=number)


def _issue(number: int, flaw: Flaw, brought: datetime, mended: datetime) -> dict[str, Any]:
    """As GitHub tells it."""
    name, shown = flaw.specimen.name, min(flaw.wrong, key=lambda one: len(repr(one.arguments)))
    began = brought + HOUR / 2
    return {
        "number": number,
        "title": f"{name} gives a wrong answer",
        "body": f"`{_call(name, shown)}` {shown.said} and should be `{shown.value!r}`: {_suspected(flaw.mutation)}",
        "state": "closed",
        "state_reason": "completed",
        "labels": [{"name": "bug"}],
        "user": {"login": "eve"},
        "created_at": began.isoformat(),
        "updated_at": began.isoformat(),
        "closed_at": mended.isoformat(),
    }


def _suspected(mutation: Mutation) -> str:
    """As reporters do who have looked."""
    return f"see line {mutation.line}, `{mutation.source.splitlines()[mutation.line - 1].strip()}`."


def _call(name: str, example: Example) -> str:
    return f"{name}({', '.join(map(repr, example.arguments))})"


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
