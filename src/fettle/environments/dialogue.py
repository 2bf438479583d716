"""Dialogue: a model is the environment of another. One answers, the other wants something, teaches or examines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fettle.config import Dialogue
from fettle.environments.base import Game, GameStep, Observation
from fettle.environments.generated import prompt
from fettle.environments.jsonl import ListedTasks, check_answers
from fettle.environments.scoring import ScoringThread
from fettle.errors import DataError, EnvironmentFault
from fettle.rewards import RewardFunction, in_tags, tagged_answer
from fettle.rewards.judge import named_reward
from fettle.rows import Row, rows
from fettle.types import Message, Task

ASSISTANT, USER = "assistant", "user"
OTHER = {ASSISTANT: USER, USER: ASSISTANT}
SIGN = {"same": 1.0, "opposite": -1.0}


def suite(config: Dialogue) -> "Dialogues":
    """The dialogues of ``config.path``.

    Raises:
        ConfigError: there is no such reward, its judge's key is not where it should be, or expressions have to be
            compared and cannot be.
        DataError: a line is malformed, or holds an answer that the reward itself would not pay; or there are too few
            to hold some out.
    """
    return Dialogues(config)


class Dialogues:
    """Satisfies ``GameSuite``."""

    players = (ASSISTANT, USER)

    def __init__(self, config: Dialogue) -> None:
        self.name = Path(config.path).stem
        self._config = config
        reward = named_reward(config.reward, config.judge)
        self._reward = in_tags(reward) if config.answer_in == "tags" and config.judge is None else reward
        self._thread = ScoringThread()
        tasks = {row.place: _task(row, self.name) for row in rows(config.path)}
        check_answers(tasks, reward, config.reward)
        self._tasks = ListedTasks(config.path, [*tasks.values()], seed=config.seed, heldout=config.heldout)

    def training_task(self, index: int) -> Task:
        """Each row once in as many indices as there are rows."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The rows kept for evaluation."""
        return self._tasks.heldout_tasks()

    def game(self) -> Game:
        """A new dialogue."""
        return LLMEnvironment(self._config, self._reward, self._thread)


class LLMEnvironment:
    """Satisfies ``Game``: whoever plays ``user`` is what the one who plays ``assistant`` acts upon, and the reverse.

    It knows no model. Which of the two learns, and which is frozen, is said where they are seated.
    """

    def __init__(self, config: Dialogue, reward: RewardFunction, thread: ScoringThread) -> None:
        self._config = config
        self._reward = reward
        self._thread = thread
        self._task: Task | None = None
        self._said: list[tuple[str, str]] = []
        self._over = False

    async def reset(self, task: Task) -> tuple[Mapping[str, Observation], tuple[str, ...]]:
        """What each side is told of the task, and who speaks first.

        Raises:
            EnvironmentFault: a dialogue has begun already.
        """
        if self._task is not None:
            raise EnvironmentFault(f"a game is played once, and this one has begun task {self._task.id}: make another")
        self._task = task
        systems = {ASSISTANT: self._config.assistant_system, USER: self._config.user_system}
        briefs = zip((ASSISTANT, USER), task.prompt, strict=True)
        told = {player: Observation(prompt(systems[player], brief.content)) for player, brief in briefs}
        return told, (self._config.begins,)

    async def step(self, actions: Mapping[str, Message]) -> GameStep:
        """One of them has spoken, and the other hears it; or it is over, and the reward is paid.

        Raises:
            EnvironmentFault: the other was to speak, or nobody; or the reward failed.
        """
        speaker = self._config.begins if not self._said else OTHER[self._said[-1][0]]
        if self._task is None or self._over:
            raise EnvironmentFault("there is no dialogue to step: reset a new game with a task, and step it to its end")
        if set(actions) != {speaker}:
            raise EnvironmentFault(f"it is the turn of {speaker}, and {', '.join(actions) or 'nobody'} spoke")
        words = actions[speaker].content
        self._said.append((speaker, words))
        if not self._is_last(speaker, words):
            return GameStep({OTHER[speaker]: (Message("user", words),)}, (OTHER[speaker],))
        self._over = True
        components = await self._thread.scored(self._config.reward, self._reward, self._scored(), self._task)
        paid = {ASSISTANT: components}
        if self._config.user_reward != "none":
            sign = SIGN[self._config.user_reward]
            paid[USER] = {name: sign * value for name, value in components.items()}
        return GameStep({}, (), paid, {"turns": float(len(self._said))})

    async def close(self) -> None:
        """Nothing is held."""
        self._over = True

    def _is_last(self, speaker: str, words: str) -> bool:
        """Whether nothing comes after these words."""
        config = self._config
        if speaker == USER:
            return config.ends_with is not None and config.ends_with in words
        answered = config.answer_in == "tags" and tagged_answer(words) is not None
        return answered or sum(who == ASSISTANT for who, _ in self._said) == config.turns

    def _scored(self) -> str:
        """What the reward is of: the assistant's last words, but of all that was said where a judge reads it."""
        if self._config.judge is not None:
            return "\n\n".join(f"{who}: {_indented(words)}" for who, words in self._said)
        return next((words for who, words in reversed(self._said) if who == ASSISTANT), "")


def _task(row: Row, name: str) -> Task:
    """What the two are told, the assistant first. Neither is shown to the other, nor the answer to anybody."""
    answer = row.fields.get("answer")
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise DataError(f"{row.place}: the answer is missing: add it, as a text or a number")
    told = (Message("user", row.text(ASSISTANT)), Message("user", row.text(USER)))
    data = {field: value for field, value in row.fields.items() if field not in (ASSISTANT, USER)}
    return Task(told, data, name)


def _indented(words: str) -> str:
    """Words of several lines, of which only the first is at the margin, so that nobody can speak for the other."""
    return "\n  ".join(words.splitlines())
