"""Debate: two sides argue over a claim from the same evidence, in turn or at once, until a judge says who won."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from types import MappingProxyType

from fettle.config import Debate, ModelJudge
from fettle.environments.base import Game, GameStep, Observation
from fettle.environments.claims import NAME, drawn_claim, evidence_of, listed_claims
from fettle.environments.generated import GeneratedTasks
from fettle.environments.jsonl import ListedTasks
from fettle.environments.verdicts import OTHER, Side, Speech, Verdict, model_verdict, rule_verdict
from fettle.errors import EnvironmentFault
from fettle.rewards.judge import Asked
from fettle.types import Message, Task

STANDS: Mapping[Side, str] = MappingProxyType({"pro": "You argue for it.", "con": "You argue against it."})

Decide = Callable[[Task, Sequence[Speech]], Awaitable[Verdict]]
Turn = tuple[str, ...]


def suite(config: Debate) -> "Debates":
    """Debates over claims.

    Raises:
        ConfigError: there are too few different claims, or the judge's key is not where it should be.
        DataError: the file of claims cannot be used.
    """
    return Debates(config)


class Debates:
    """Satisfies ``GameSuite``."""

    def __init__(self, config: Debate) -> None:
        self.name = NAME
        self.players = tuple(player for side in OTHER for player in _team(config, side))
        self._config = config
        self._tasks = _tasks(config)
        self._decide = _judge(config)

    def training_task(self, index: int) -> Task:
        """A claim; the same for the same index, and never one that is held out."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The claims kept for evaluation."""
        return self._tasks.heldout_tasks()

    def game(self) -> Game:
        """A new debate."""
        return OneDebate(self._config, self._decide)


class Course:
    """Who speaks when, and what each has yet to hear."""

    def __init__(self, config: Debate) -> None:
        self.speeches: list[Speech] = []
        self._side: dict[str, Side] = {player: side for side in OTHER for player in _team(config, side)}
        self._turns = list(_turns(config))
        self._unheard: dict[str, list[str]] = {player: [] for player in self._side}

    @property
    def turn(self) -> Turn:
        """Who speaks next; nobody once everybody has."""
        return self._turns[0] if self._turns else ()

    def opening(self, task: Task) -> dict[str, Observation]:
        """What each player sees first: the claim, the evidence, and where it stands."""
        *before, asked = task.prompt
        return {
            player: Observation((*before, replace(asked, content=f"{asked.content}\n{STANDS[side]}")))
            for player, side in self._side.items()
        }

    def said(self, words: Mapping[str, str]) -> None:
        """Those whose turn it was have spoken."""
        for speaker in self._turns.pop(0):
            self.speeches.append(Speech(self._side[speaker], words[speaker]))
            for player, unheard in self._unheard.items():
                if player != speaker:
                    whose = "Your side" if self._side[player] == self._side[speaker] else "The other side"
                    unheard.append(f"{whose}: {words[speaker]}")

    def heard(self) -> dict[str, tuple[Message, ...]]:
        """What those hear whose turn it is, in one message each."""
        found = {player: self._unheard.pop(player) for player in self.turn}
        self._unheard |= {player: [] for player in found}
        return {player: (Message("user", "\n".join(words)),) for player, words in found.items() if words}

    def paid(self, winner: Side | None, *, zero_sum: bool) -> dict[str, dict[str, float]]:
        """What each player earns, as all of its side do."""
        neither, lost = (0.0, -1.0) if zero_sum else (0.5, 0.0)
        return {
            player: {"verdict": neither if winner is None else 1.0 if side == winner else lost}
            for player, side in self._side.items()
        }


class OneDebate:
    """Satisfies ``Game``."""

    def __init__(self, config: Debate, decide: Decide) -> None:
        self._course = Course(config)
        self._zero_sum = config.zero_sum
        self._decide = decide
        self._task: Task | None = None

    async def reset(self, task: Task) -> tuple[Mapping[str, Observation], Turn]:
        """The claim, as each side sees it.

        Raises:
            EnvironmentFault: a debate has begun already.
        """
        if self._task is not None:
            raise EnvironmentFault(f"a game is played once, and this one has begun task {self._task.id}: make another")
        self._task = task
        return self._course.opening(task), self._course.turn

    async def step(self, actions: Mapping[str, Message]) -> GameStep:
        """Those whose turn it is have spoken; after the last of them the judge decides.

        Raises:
            EnvironmentFault: others have spoken, or nobody is to speak; or the judge failed.
        """
        course, task = self._course, self._task
        if task is None or not course.turn:
            raise EnvironmentFault("there is no debate to step: reset a new game with a task, and step it to its end")
        if set(actions) != set(course.turn):
            raise EnvironmentFault(f"it is the turn of {', '.join(course.turn)}, and {', '.join(actions)} spoke")
        course.said({player: action.content for player, action in actions.items()})
        if course.turn:
            return GameStep(course.heard(), course.turn)
        verdict = await self._decide(task, course.speeches)
        return GameStep({}, (), course.paid(verdict.winner, zero_sum=self._zero_sum), verdict.measured)

    async def close(self) -> None:
        """Nothing is held."""


def shown(config: Debate, task: Task, rng: Random) -> dict[str, tuple[Message, ...]]:
    """A debate to learn the form from, as each player sees it: everybody quotes any evidence, for whichever side."""
    course, pieces = Course(config), evidence_of(task)
    views = {player: list(observation.messages) for player, observation in course.opening(task).items()}
    while course.turn:
        words = {player: f'"{rng.choice(pieces).text}"' for player in course.turn}
        for player, text in words.items():
            views[player].append(Message("assistant", text))
        course.said(words)
        for player, messages in course.heard().items():
            views[player] = _joined(views[player], messages)
    return {player: tuple(messages) for player, messages in views.items()}


def _joined(before: list[Message], new: Sequence[Message]) -> list[Message]:
    """As ``rollouts.match`` joins them: what comes before a player's first words is one message."""
    *earlier, last = before
    if last.role != "user":
        return [*before, *new]
    return [*earlier, replace(last, content="\n".join([last.content, *(message.content for message in new)]))]


def _team(config: Debate, side: Side) -> list[str]:
    return [side] if config.team == 1 else [f"{side}-{number}" for number in range(1, config.team + 1)]


def _turns(config: Debate) -> Sequence[Turn]:
    rounds = [[_team(config, side)[number % config.team] for side in OTHER] for number in range(config.rounds)]
    if config.order == "simultaneous":
        return [tuple(speakers) for speakers in rounds]
    return [(speaker,) for speakers in rounds for speaker in speakers]


def _tasks(config: Debate) -> GeneratedTasks | ListedTasks:
    if config.path is None:
        draw = partial(drawn_claim, pieces=config.evidence, system=config.system)
        return GeneratedTasks(NAME, draw, seed=config.seed, heldout=config.heldout)
    by_rule = not isinstance(config.judge, ModelJudge)
    tasks = list(listed_claims(config.path, system=config.system, judged_by_rule=by_rule))
    return ListedTasks(config.path, tasks, seed=config.seed, heldout=config.heldout)


def _judge(config: Debate) -> Decide:
    judge = config.judge
    if isinstance(judge, ModelJudge):
        return partial(model_verdict, Asked(judge.judge), judge.rubric)

    async def by_rule(task: Task, speeches: Sequence[Speech]) -> Verdict:
        return rule_verdict(judge, task, speeches)

    return by_rule
