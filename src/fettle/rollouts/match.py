"""One game: several players, each with a conversation, a sampler and a trajectory of its own."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fettle.chat import Template
from fettle.config import Limits, SamplingParams
from fettle.engine import Sampler
from fettle.environments import Game, GameStep, Observation
from fettle.environments.answers import check_game_step, check_observation, finite
from fettle.errors import EnvironmentFault
from fettle.randomness import key
from fettle.rollouts.conversation import Conversation
from fettle.rollouts.episode import answered, outcome
from fettle.rollouts.together import together
from fettle.types import Ending, Failed, Message, Task, Trajectory

WON = "won"
"""What is measured of each side when a game is over: 1 where it earned more than the mean of all that spoke, 0 where
less, and a half where as much."""


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """Who plays a player, and how it draws; the seed of ``params`` names the game."""

    sampler: Sampler
    template: Template
    params: SamplingParams


async def match(
    task: Task, game: Game, *, seats: Mapping[str, Seat], limits: Limits, group: str = ""
) -> dict[str, Trajectory] | Failed:
    """Play ``task`` to its end: the trajectory of every player that spoke, by name.

    A player that reaches a limit ends the game for all. A fault of the game makes it ``Failed``; one of an engine is
    raised.
    """
    return await outcome(task, _Match(task, game, seats, limits, group).played(), game.close, limits, group)


class _Match:
    def __init__(self, task: Task, game: Game, seats: Mapping[str, Seat], limits: Limits, group: str) -> None:
        self._task, self._game, self._seats, self._limits, self._group = task, game, seats, limits, group
        self._sides: dict[str, Conversation] = {}
        self._heard: dict[str, list[Message]] = {}

    async def played(self) -> dict[str, Trajectory]:
        first, turn = _opening(await answered(self._game.reset(self._task), tuple, self._limits))
        _check_known(first, self._seats)
        _check_known(turn, first)
        for player, observation in first.items():
            check_observation(observation)
            seat = self._seats[player]
            self._sides[player] = Conversation(
                self._task,
                observation,
                sampler=seat.sampler,
                template=seat.template,
                params=seat.params.model_copy(update={"seed": key(seat.params.seed, "player", player)}),
                limits=self._limits,
            )
        while True:
            said = await together(self._spoken(player) for player in turn)
            actions = {player: action for player, action in zip(turn, said, strict=True) if action is not None}
            if len(actions) < len(turn):
                return self._told("context")
            step = await answered(self._game.step(actions), GameStep, self._limits)
            check_game_step(step)
            self._taken(step)
            ending = self._ending(step)
            if ending or not step.turn:
                return self._told(ending)
            turn = step.turn

    async def _spoken(self, player: str) -> Message | None:
        side = self._sides[player]
        if new := self._heard.pop(player, []):
            side.heard(_joined(side, new))
        return await side.reply()

    def _taken(self, step: GameStep) -> None:
        _check_known((*step.heard, *step.components, *step.turn), self._sides)
        for player, messages in step.heard.items():
            self._heard.setdefault(player, []).extend(messages)
        for player, components in step.components.items():
            self._sides[player].earned(finite(components))
        for side in self._sides.values():
            side.measured.update(step.measured)

    def _ending(self, step: GameStep) -> Ending:
        if step.truncated:
            return "environment"
        return next((limit for player in step.turn if (limit := self._sides[player].limit())), "")

    def _told(self, ending: Ending) -> dict[str, Trajectory]:
        spoke = {player: side for player, side in self._sides.items() if side.spoke}
        mean = statistics.fmean(side.reward for side in spoke.values())
        for side in spoke.values():
            lead = 0.0 if math.isclose(side.reward, mean, rel_tol=1e-9, abs_tol=1e-9) else side.reward - mean
            side.measured[WON] = (math.copysign(1.0, lead) + 1) / 2 if lead else 0.5
        return {
            player: side.trajectory(group=f"{self._group}/{player}", ending=ending, player=player)
            for player, side in spoke.items()
        }


def _joined(side: Conversation, new: Sequence[Message]) -> Sequence[Message]:
    """What is new to a player: one message with what it was told first, as many templates know no two in a row."""
    if side.spoke or not side.messages or side.messages[-1].role != "user" or new[0].role != "user":
        return new
    begun = side.messages.pop()
    return [replace(begun, content=f"{begun.content}\n{new[0].content}"), *new[1:]]


def _opening(found: tuple[object, ...]) -> tuple[dict[str, Observation], tuple[str, ...]]:
    """What a game begins with.

    Raises:
        EnvironmentFault: it is something else, or nobody is to act.
    """
    match found:
        case (Mapping() as first, tuple() as turn) if turn and all(isinstance(o, Observation) for o in first.values()):
            return dict(first), turn
    raise EnvironmentFault("the game begins with something else than an observation a player and who acts: mend it")


def _check_known(named: Collection[str], players: Collection[str]) -> None:
    for player in named:
        if player not in players:
            known = ", ".join(players)
            raise EnvironmentFault(f"the game speaks of a player {player!r}, and its players are {known}: mend it")
