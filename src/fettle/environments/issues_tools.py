"""A work tree that a policy looks around in, edits and tests, call by call."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from fettle.config import ToolUse, Validation
from fettle.environments.base import Observation, StepResult
from fettle.environments.tools import ToolEnvironment, ToolMistake, Workspace, tools_of
from fettle.environments.tools.tool import Tool
from fettle.environments.tools.workspace import inside
from fettle.errors import DataError
from fettle.issues.edits import Edit, edited
from fettle.issues.patches import kind_of
from fettle.issues.questions import numbers
from fettle.issues.testing import files_with_tests, verdicts
from fettle.issues.trees import Tree
from fettle.sandbox import sandbox
from fettle.types import Message, Task

MOST_FOUND = 40
"""Lines that one search tells, and files that one list names."""
MOST_TESTED = 20
"""Files of tests that one call runs."""
MOST_LINES = 200
"""Lines that one view shows."""

Paid = Callable[[Task, Tree | None, str], Awaitable[StepResult]]
"""What a problem's files earn as they were left, with what was said of them; None where the tests were touched."""


class WorkTree:
    """The files of a problem as they were before its solution. The public methods are what a policy may call."""

    def __init__(self, base: Tree, validation: Validation) -> None:
        self.now = base
        self.tests_were_touched = False
        self._validation = validation

    def list_files(self, folder: str) -> str:
        """Names the files below a folder; "." is all of them."""
        below = "" if folder in ("", ".") else f"{inside(folder)}/"
        return _cut(sorted(path for path in self.now.files if path.startswith(below)), "files")

    def view(self, path: str, first_line: int = 1) -> str:
        """Shows a file, from a line on, each line after its number."""
        lines = self._text(path).splitlines()
        if not 1 <= first_line <= max(1, len(lines)):
            raise ToolMistake(f"{path} has {len(lines)} lines, and none of number {first_line}")
        shown = lines[first_line - 1 : first_line - 1 + MOST_LINES]
        left = len(lines) - (first_line - 1) - len(shown)
        return numbers("\n".join(shown), first_line) + (f"({left} lines more)" if left else "")

    def search(self, text: str) -> str:
        """Finds the lines in all files that hold a text, as it is."""
        if not text.strip():
            raise ToolMistake("text is empty: give a word of what is looked for")
        texts = ((path, self.now.text(path) or "") for path in sorted(self.now.files))
        found = [
            f"{path}:{at}: {line.strip()}"
            for path, held in texts
            for at, line in enumerate(held.splitlines(), 1)
            if text in line
        ]
        return _cut(found, "lines")

    def edit(self, path: str, old: str, new: str) -> str:
        """Puts new lines in the place of old ones, which must be there once; without old ones, makes a new file.

        Tests are not to be changed.
        """
        name = inside(path)
        if kind_of(name) == "test":
            self.tests_were_touched = True
            raise ToolMistake(f"{name} is of the tests, which are not to be changed: whoever tries earns nothing")
        if not old.strip() and name in self.now.files:
            raise ToolMistake("old is empty: give some of the lines that are there")
        try:
            self.now = edited(self.now, [Edit(name, _ended(old), _ended(new))])
        except DataError as error:
            raise ToolMistake(error.message) from error
        return f"{name} is changed"

    async def run_tests(self, path: str) -> str:
        """Runs the tests in a file, or in the files below a folder, and tells which of them fail."""
        name = "" if path in ("", ".") else inside(path)
        files = [p for p in files_with_tests(self.now.files) if p == name or p.startswith(f"{name}/" if name else "")]
        if not files or len(files) > MOST_TESTED:
            raise ToolMistake(f"{path} holds {len(files)} files of tests: name one, or a folder of 1 to {MOST_TESTED}")
        settings = self._validation
        run = await verdicts(sandbox(settings.sandbox), self.now, files, settings)
        if run.trouble:
            return f"The tests could not be run: {run.trouble}"
        failed = sorted(test for test, status in run.statuses.items() if status == "failed")
        return "\n".join([f"{len(run.passed)} passed, {len(failed)} failed", *failed[:MOST_FOUND]])

    def _text(self, path: str) -> str:
        text = self.now.text(inside(path))
        if text is None:
            raise ToolMistake(f"there is no file {path} with text in it: list_files names them")
        return text


class IssueTools:
    """Satisfies ``Environment``: tools around a work tree, whose last state is paid once a reply calls nothing."""

    def __init__(self, settings: ToolUse, work_for: Callable[[Task], WorkTree], paid: Paid) -> None:
        self._work_for, self._paid = work_for, paid
        self._work: WorkTree | None = None
        self._end: StepResult | None = None
        self._inner = ToolEnvironment(
            self._brought,
            self._scored,
            call_cost=settings.call_cost,
            max_calls=settings.max_calls,
            call_seconds=settings.call_seconds,
            result_characters=settings.result_characters,
            closed=_held_by_nobody,
        )

    async def reset(self, task: Task) -> Observation:
        """The prompt of ``task``, and what may be called."""
        self._work = self._work_for(task)
        return await self._inner.reset(task)

    async def step(self, action: Message) -> StepResult:
        """What the calls came to; or, where there are none, what the work tree earns as it is now.

        Raises:
            EnvironmentFault: a tool broke or took too long; or there is no episode to step.
            SandboxError: the tests could not be run.
        """
        result = await self._inner.step(action)
        if self._end is None:
            return result
        return replace(result, measured={**result.measured, **self._end.measured})

    async def close(self) -> None:
        """Nothing is held."""
        await self._inner.close()

    async def _brought(self, _: Workspace) -> Sequence[Tool]:
        return tools_of(self._work)

    async def _scored(self, reply: str, task: Task) -> dict[str, float]:
        work = self._work
        proposed = work.now if work is not None and not work.tests_were_touched else None
        self._end = await self._paid(task, proposed, reply)
        return dict(self._end.components)


async def _held_by_nobody() -> None:
    """The files are in memory, and go with the episode."""


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _cut(found: Sequence[str], what: str) -> str:
    left = len(found) - MOST_FOUND
    told = [*found[:MOST_FOUND], *([f"({left} {what} more)"] if left > 0 else [])]
    return "\n".join(told) or f"there are no such {what}"
