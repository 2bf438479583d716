"""An environment that takes its time: conversations of a fixed number of turns, whose latencies a simulation knows."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from random import Random

from benchmarks.cluster_sim.episodes import Episode, Turn
from fettle.environments import Observation, StepResult
from fettle.randomness import key
from fettle.types import Message, Task

HELD_OUT = -1


@dataclass(frozen=True, slots=True)
class Known:
    """The same episodes for the run and for its simulation. Log-normal latencies, of which a few are late."""

    groups: int = 4
    group_size: int = 4
    turns: int = 2
    drawn: int = 4
    """Tokens of every reply."""
    latency: float = 2.0
    """Seconds until the environment answers, at the median; 0: at once."""
    sigma: float = 0.7
    late: float = 0.02
    late_seconds: float = 5.0
    seed: int = 0

    def seconds(self, index: int, member: int, turn: int) -> float:
        """Until the environment answers a turn of an episode of the task of that index."""
        if not self.latency or index == HELD_OUT:
            return 0.0
        own = Random(key(self.seed, "slow", index, member, turn))
        late = self.late_seconds if own.random() < self.late else 0.0
        return self.latency * math.exp(own.gauss(0.0, self.sigma)) + late

    def episode(self, batch: int, group: int, member: int) -> Episode:
        """As a simulation sees it."""
        index = batch * self.groups + group
        return Episode(
            batch,
            group,
            member,
            tuple(Turn(0, self.drawn, self.seconds(index, member, turn)) for turn in range(self.turns)),
        )


class Slow:
    """Satisfies ``Suite``."""

    name = "slow"

    def __init__(self, known: Known) -> None:
        self.known = known
        self._members: Counter[int] = Counter()

    def training_task(self, index: int) -> Task:
        """Every index has a task of its own."""
        return Task((Message("user", f"question {index:06}"),), {"index": index, "answer": str(index)}, self.name)

    def heldout_tasks(self) -> list[Task]:
        """One, which is answered at once."""
        return [Task((Message("user", "question"),), {"index": HELD_OUT, "answer": "-"}, self.name)]

    def environment(self) -> "SlowEnvironment":
        """For one episode."""
        return SlowEnvironment(self)

    def member(self, index: int) -> int:
        """Which of its group begins now."""
        self._members[index] += 1
        return self._members[index] - 1


class SlowEnvironment:
    """Satisfies ``Environment``: pays something that differs from episode to episode."""

    def __init__(self, suite: Slow) -> None:
        self._suite = suite
        self._index = self._member = self._turn = 0

    async def reset(self, task: Task) -> Observation:
        """At once."""
        self._index = task.data["index"]
        self._member = self._suite.member(self._index)
        return Observation(task.prompt)

    async def step(self, action: Message) -> StepResult:
        """After its latency."""
        known = self._suite.known
        seconds = known.seconds(self._index, self._member, self._turn)
        if seconds:
            await asyncio.sleep(seconds)
        self._turn += 1
        if self._turn < known.turns:
            return StepResult((Message("user", "and then?"),), 0.0, terminated=False, truncated=False, components={})
        paid = Random(key("paid", self._index, self._member)).random()
        return StepResult((), paid, terminated=True, truncated=False, components={"paid": paid})

    async def close(self) -> None:
        """Nothing is held."""
