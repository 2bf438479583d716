"""Problems whose answer is code: it is run on tests in the sandbox, and what comes out is compared outside."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from fettle.config import Code, ListedProblems, MadeProblems
from fettle.environments.base import Environment, Observation, StepResult, Suite
from fettle.environments.code_files import Asked, listed
from fettle.environments.code_made import drawn_problem
from fettle.environments.generated import GeneratedTasks, prompt
from fettle.environments.jsonl import ListedTasks
from fettle.errors import EnvironmentFault
from fettle.rewards.coding import CallTest, Problem, StreamTest, Verdict, code_block, graded, literal
from fettle.sandbox import Sandbox, sandbox
from fettle.types import Message, Task

COMPONENT = "tests"
NO_CODE = "There was no answer: give exactly one fenced block, ```python ... ```."


class Tasks(Protocol):
    """Where tasks come from."""

    def training_task(self, index: int) -> Task:
        """As of a ``Suite``."""

    def heldout_tasks(self) -> Sequence[Task]:
        """As of a ``Suite``."""


class CodeSuite:
    """Problems, and environments that grade answers to them in one sandbox."""

    def __init__(self, name: str, tasks: Tasks, config: Code) -> None:
        self.name = name
        self._tasks = tasks
        self._config = config
        self._grading = Grading(config.tolerance)

    def training_task(self, index: int) -> Task:
        """One that is not held out."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The problems kept for evaluation."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new environment, for one problem."""
        return Coding(self._config, sandbox(self._config.sandbox), self._grading)


class Grading:
    """Runs answers; those of a group that are the same, and wait for the same verdicts, are run once.

    Most of what an answer costs is the process that it is run in, and a policy that knows what to write writes it
    again and again.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._running: dict[tuple[object, ...], asyncio.Task[list[Verdict]]] = {}

    async def verdicts(self, code: str, problem: Problem, place: Sandbox) -> list[Verdict]:
        """What comes of each test.

        Raises:
            SandboxError: the sandbox failed, which says nothing of the code.
        """
        asked = (asyncio.get_running_loop(), place, code, problem.model_dump_json())
        if asked not in self._running:
            self._running[asked] = asyncio.ensure_future(graded(code, problem, place, tolerance=self._tolerance))
            self._running[asked].add_done_callback(lambda _: self._running.pop(asked))
        # Who stops waiting does so alone.
        return await asyncio.shield(self._running[asked])


class Coding:
    """One problem, and as many answers to it as there are attempts; only the last of them is paid for."""

    repeatable = True

    def __init__(self, config: Code, place: Sandbox, grading: Grading) -> None:
        self._config = config
        self._sandbox = place
        self._grading = grading
        self._problem: Problem | None = None
        self._left = config.attempts

    async def reset(self, task: Task) -> Observation:
        """The question."""
        if self._problem is not None:
            raise EnvironmentFault("an environment plays one episode, and this one has begun: make another")
        self._problem = problem_of(task)
        return Observation(task.prompt, one_reply=self._left == 1)

    async def step(self, action: Message) -> StepResult:
        """The share of the hidden tests that the code passes; after a wrong one, while attempts are left, a hint.

        Raises:
            EnvironmentFault: the sandbox failed, or there is no episode to step.
        """
        if self._problem is None or self._left == 0:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task")
        self._left -= 1
        code = code_block(action.content)
        verdicts = await self._verdicts(code, self._problem)
        hidden = verdicts[len(self._problem.shown) :]
        share = sum(verdict.passed for verdict in hidden) / len(self._problem.hidden)
        measured = {"code/passed": share, "code/answered": float(code is not None)}
        failed = next((verdict for verdict in verdicts if not verdict.passed), None)
        if self._left and (code is None or failed is not None):
            told = NO_CODE if failed is None else hint(failed, public=failed.test in self._problem.shown)
            return StepResult((Message("user", told),), 0.0, False, False, {COMPONENT: 0.0}, measured)
        self._left = 0
        paid = share if self._config.credit == "share" else float(share == 1)
        return StepResult((), paid, terminated=True, truncated=False, components={COMPONENT: paid}, measured=measured)

    async def close(self) -> None:
        """Nothing is held: the sandbox is everybody's."""
        self._left = 0

    async def _verdicts(self, code: str | None, problem: Problem) -> list[Verdict]:
        if code is None:
            return []
        return await self._grading.verdicts(code, problem, self._sandbox)


def suite(config: Code) -> Suite:
    """The problems that ``config`` names.

    Raises:
        DataError: its file is not there, or cannot be used.
        ConfigError: its settings make too few problems.
    """
    problems = config.problems
    if isinstance(problems, MadeProblems):
        return CodeSuite(config.type, _made(problems, config), config)
    return CodeSuite(Path(problems.path).stem, _listed(problems, config), config)


def _made(problems: MadeProblems, config: Code) -> Tasks:
    def draw(rng: Random) -> Task:
        return task_of(drawn_problem(rng, problems), config.system, config.type)

    return GeneratedTasks(config.type, draw, seed=config.seed, heldout=config.heldout)


def _listed(problems: ListedProblems, config: Code) -> Tasks:
    tasks = [task_of(asked, config.system, Path(problems.path).stem) for asked in listed(problems)]
    return ListedTasks(problems.path, tasks, seed=config.seed, heldout=config.heldout)


def task_of(asked: Asked, system: str | None, source: str) -> Task:
    """A problem as a task, whose data are all that it is graded by."""
    return Task(prompt(system, asked.question), asked.problem.model_dump(mode="json"), source)


def problem_of(task: Task) -> Problem:
    """What answers to a task are graded by."""
    return Problem.model_validate(task.data)


def hint(failed: Verdict, *, public: bool) -> str:
    """What a failed test was given and what came of it; what should have come only where that is public anyway."""
    test = failed.test
    if isinstance(test, CallTest):
        should = f", and should have returned {literal(test.expected)}" if public and not test.truth else ""
        return f"{test.expression} {failed.happened}{should}. Try again."
    if isinstance(test, StreamTest):
        should = f"\nIt should have printed:\n{test.stdout}" if public else ""
        return f"For the input\n{test.stdin}\nthe program {failed.happened}.{should}\nTry again."
    return f"Some tests did not pass: the code {failed.happened}. Try again."
