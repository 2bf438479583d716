"""Questions from a JSON Lines file, with a reward by name."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

from fettle.config import JSONL
from fettle.environments.base import Environment, Suite
from fettle.environments.generated import distinct, prompt
from fettle.environments.math_answers import check_readable, symbols
from fettle.environments.scoring import ScoringThread
from fettle.environments.single_turn import SingleTurn, paying
from fettle.errors import DataError, nearest
from fettle.randomness import key
from fettle.rewards import REWARDS, RewardFunction, in_tags, is_awaited, mathematics
from fettle.rewards.judge import named_reward
from fettle.rows import Row, rows
from fettle.types import Message, Task


class ListedTasks:
    """The tasks of a file, again and again, each epoch in an order of its own.

    What is held out is held out by its prompt: rows that ask the same are never on both sides.

    Raises:
        DataError: there are too few different prompts to hold some out.
    """

    def __init__(self, path: str, tasks: Sequence[Task], *, seed: int, heldout: int) -> None:
        prompts = len({task.prompt for task in tasks})
        if prompts < heldout + 1:
            raise DataError(
                f"heldout is {heldout}, but {path} asks only {prompts} different things, and one must be left"
                f" to train on: add rows, or set both heldout and evaluation.tasks to {max(1, prompts // 5)}"
            )
        shuffled = sorted(tasks, key=lambda task: key(seed, "heldout", task.prompt))
        self._seed = seed
        self._heldout = distinct(shuffled, heldout)
        kept = {task.prompt for task in self._heldout}
        self._training = [task for task in tasks if task.prompt not in kept]

    def training_task(self, index: int) -> Task:
        """Each row once in as many indices as there are rows."""
        epoch, place = divmod(index, len(self._training))
        return self._training[_order(len(self._training), key(self._seed, "epoch", epoch))[place]]

    def heldout_tasks(self) -> Sequence[Task]:
        """The rows kept for evaluation, each prompt once."""
        return self._heldout


class FileSuite:
    """The tasks of a file, each with one reply that earns a reward.

    Raises:
        DataError: as of :class:`ListedTasks`.
    """

    def __init__(self, name: str, tasks: Sequence[Task], reward: RewardFunction, config: JSONL) -> None:
        self.name = name
        self._tasks = ListedTasks(config.path, tasks, seed=config.seed, heldout=config.heldout)
        self._reward = reward
        self._thread = ScoringThread()
        self._config = config

    def training_task(self, index: int) -> Task:
        """Each row once in as many indices as there are rows."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The rows kept for evaluation, each prompt once."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new single-turn environment."""
        return SingleTurn(paying(self._config.reward, self._reward, self._thread))


@lru_cache(maxsize=16)
def _order(size: int, seed: int) -> Sequence[int]:
    return Random(seed).sample(range(size), size)


def suite(config: JSONL) -> Suite:
    """The tasks of ``config.path``.

    Raises:
        DataError: a line is malformed, lacks an answer, or holds one that the reward itself would not pay; or
            there are too few different prompts to hold some out.
        ConfigError: there is no such reward, its judge's key is not where it should be, or expressions have to be
            compared and cannot be.
    """
    scored = named_reward(config.reward, config.judge)
    name = Path(config.path).stem
    tasks = {row.place: Task(_prompt(row, config.system), _data(row), name) for row in rows(config.path)}
    check_answers(tasks, scored, config.reward)
    return FileSuite(name, [*tasks.values()], in_tags(scored) if config.answer_in == "tags" else scored, config)


def _prompt(row: Row, system: str | None) -> tuple[Message, ...]:
    if ("prompt" in row.fields) == ("messages" in row.fields):
        wrong = "and not both" if "prompt" in row.fields else f"for it has neither{_renamed(row, 'prompt')}"
        raise DataError(f"{row.place}: give either prompt or messages, {wrong}")
    if "prompt" in row.fields:
        return prompt(system, row.text("prompt"))
    messages = row.messages()
    if messages[-1].role == "assistant":
        raise DataError(
            f"{row.place}: the last message is the assistant's, so nothing is left to be answered: end with the user's"
        )
    if system is None or messages[0].role == "system":
        return messages
    return (Message("system", system), *messages)


def _data(row: Row) -> dict[str, object]:
    answer = row.fields.get("answer")
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise DataError(f"{row.place}: the answer is missing: add it, as a text or a number{_renamed(row, 'answer')}")
    return {name: value for name, value in row.fields.items() if name not in ("prompt", "messages")}


def _renamed(row: Row, name: str) -> str:
    """The end of a message about a field that is not there: one that may be meant for it."""
    meant = next((field for field in row.fields if nearest(field, [name])), None)
    return f" (rename {meant} to {name}?)" if meant else ""


def check_answers(tasks: Mapping[str, Task], scored: RewardFunction, reward: str) -> None:
    """Refuses a task whose own answer earns nothing, for it could never be solved. ``tasks`` are named by their places.

    Raises:
        DataError: there is one, or its answer cannot be read.
        ConfigError: expressions have to be compared and cannot be.
    """
    if scored is mathematics.math:
        check_readable(tasks)
        symbols(tasks, mathematics.SETTINGS)
    elif reward in REWARDS and not is_awaited(scored):
        for place, task in tasks.items():
            _check_earns(task, scored, place, reward)


def _check_earns(task: Task, scored: RewardFunction, place: str, name: str) -> None:
    try:
        paid = scored(str(task.data["answer"]), task)
    except DataError as error:
        raise DataError(f"{place}: {error.message}") from error
    if paid != 1:
        raise DataError(
            f"{place}: the answer {task.data['answer']!r} does not earn the reward {name} itself: write it otherwise"
        )
