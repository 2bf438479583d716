"""Problems of mathematics: an answer is right or wrong, and nothing more is ever said of it."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from fettle.config import MadeMathematics, Mathematics
from fettle.environments.base import Environment, Observation, StepResult, Suite
from fettle.environments.generated import GeneratedTasks, prompt
from fettle.environments.jsonl import ListedTasks
from fettle.environments.math_answers import symbols
from fettle.environments.math_files import listed
from fettle.environments.problems import PROBLEMS
from fettle.errors import EnvironmentFault
from fettle.rewards.matching import expected
from fettle.rewards.mathematics import Verdict, final_answer, question, verdict
from fettle.sandbox import Sandbox
from fettle.types import Message, Task

COMPONENT = "math"
WRONG = "That is not right. Try again, and give the new answer as <answer>...</answer>."
NO_ANSWER = "There was no answer: give exactly one, as <answer>...</answer>."


class Tasks(Protocol):
    """Where tasks come from."""

    def training_task(self, index: int) -> Task:
        """As of a ``Suite``."""

    def heldout_tasks(self) -> Sequence[Task]:
        """As of a ``Suite``."""


class MathematicsSuite:
    """Problems, and environments that compare answers to them."""

    def __init__(self, name: str, tasks: Tasks, *, attempts: int, symbols: Sandbox | None) -> None:
        """``symbols`` is where expressions are compared; None where answers are compared exactly or not at all."""
        self.name = name
        self._tasks = tasks
        self._attempts = attempts
        self._symbols = symbols

    def training_task(self, index: int) -> Task:
        """One that is not held out."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The problems kept for evaluation."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new environment, for one problem."""
        return Solving(self._attempts, self._symbols)


class Solving:
    """One problem, and as many answers to it as there are attempts; a right one ends it."""

    repeatable = True

    def __init__(self, attempts: int, symbols: Sandbox | None) -> None:
        self._attempts = attempts
        self._symbols = symbols
        self._task: Task | None = None
        self._made = 0
        self._timeouts = 0

    async def reset(self, task: Task) -> Observation:
        """The question."""
        if self._task is not None:
            raise EnvironmentFault(f"an environment plays one episode, and this one has begun task {self._task.id}")
        self._task = task
        return Observation(task.prompt, one_reply=self._attempts == 1)

    async def step(self, action: Message) -> StepResult:
        """1 over the number of the attempt where the answer is right; else that it is wrong, while attempts are left.

        Raises:
            EnvironmentFault: the sandbox failed, the task's answer is none, or there is no episode to step.
        """
        if self._task is None or self._made >= self._attempts:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task")
        self._made += 1
        found = await self._verdict(action.content, self._task)
        self._timeouts += found.timed_out
        measured = {
            "math/answered": float(found.answered),
            "math/attempts": float(self._made),
            "math/grader_timeouts": float(self._timeouts),
        }
        if not found.right and self._made < self._attempts:
            told = Message("user", WRONG if found.answered else NO_ANSWER)
            return StepResult((told,), 0.0, False, False, {COMPONENT: 0.0}, measured)
        paid = found.right / self._made
        self._made = self._attempts
        return StepResult((), paid, terminated=True, truncated=False, components={COMPONENT: paid}, measured=measured)

    async def close(self) -> None:
        """Nothing is held: the sandbox is everybody's."""
        self._made = self._attempts

    async def _verdict(self, reply: str, task: Task) -> Verdict:
        answer = final_answer(reply)
        if answer is None:
            return Verdict(right=False, answered=False)
        return await verdict(expected(task), answer, question=question(task), symbols=self._symbols)


def suite(config: Mathematics) -> Suite:
    """The problems that ``config`` names.

    Raises:
        DataError: its file is not there, or cannot be used.
        ConfigError: its settings make too few problems, or expressions have to be compared and cannot be.
    """
    problems = config.problems
    if isinstance(problems, MadeMathematics):
        made = _made(problems, config)
        return MathematicsSuite(config.type, made, attempts=config.attempts, symbols=None)
    name = Path(problems.path).stem
    tasks = listed(problems.path, system=config.system, source=name)
    kept = ListedTasks(problems.path, [*tasks.values()], seed=config.seed, heldout=config.heldout)
    place = symbols(tasks, problems.sandbox) if problems.checker == "symbolic" else None
    return MathematicsSuite(name, kept, attempts=config.attempts, symbols=place)


def _made(problems: MadeMathematics, config: Mathematics) -> Tasks:
    def draw(rng: Random) -> Task:
        kind = rng.choice(problems.kinds)
        problem = PROBLEMS[kind](rng, problems.difficulty)
        data = {
            "answer": problem.answer,
            "kind": kind,
            "statement": problem.statement,
            "work": problem.work,
            "wrong_answer": problem.wrong_answer,
            "wrong_work": problem.wrong_work,
        }
        return Task(prompt(config.system, problem.question), data, config.type)

    return GeneratedTasks(config.type, draw, seed=config.seed, heldout=config.heldout)
