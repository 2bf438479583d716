"""A game that a tiny model learns in a few steps: of the first two players, who says more of a letter wins."""

from collections.abc import Mapping, Sequence

from fettle.environments import Game, GameStep, Observation
from fettle.types import Message, Task

LETTER = "e"


class Duels:
    """Satisfies ``GameSuite``."""

    def __init__(self, players: Sequence[str] = ("left", "right"), *, pot: float = 1.0) -> None:
        self.name, self.players, self._pot = "duel", tuple(players), pot
        self.heard: list[dict[str, str]] = []

    def training_task(self, index: int) -> Task:
        return Task((Message("user", f"duel {index}"),), {}, self.name)

    def heldout_tasks(self) -> Sequence[Task]:
        return [self.training_task(-1 - index) for index in range(8)]

    def game(self) -> Game:
        return Duel(self)

    def settled(self, said: Mapping[str, str]) -> dict[str, dict[str, float]]:
        self.heard.append(dict(said))
        first, second, *_ = (said[player].count(LETTER) for player in self.players)
        lead = (first > second) - (first < second)
        return {self.players[0]: {"duel": self._pot * lead}, self.players[1]: {"duel": -self._pot * lead}}


class Duel:
    def __init__(self, suite: Duels) -> None:
        self._suite = suite

    async def reset(self, task: Task):
        return {player: Observation(task.prompt) for player in self._suite.players}, self._suite.players

    async def step(self, actions: Mapping[str, Message]) -> GameStep:
        said = {player: action.content for player, action in actions.items()}
        return GameStep({}, (), self._suite.settled(said))

    async def close(self) -> None:
        pass
