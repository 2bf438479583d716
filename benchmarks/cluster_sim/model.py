"""The loop over the cluster: batches are drawn ahead by a bounded number, and learned from in order."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from benchmarks.cluster_sim.costs import Costs, Weights
from benchmarks.cluster_sim.episodes import Episode
from benchmarks.cluster_sim.events import Clock, Line
from benchmarks.cluster_sim.samplers import Drawing, Pool, Routing


@dataclass(frozen=True, slots=True)
class Design:
    """A cluster, and how it is used."""

    samplers: int
    trainers: int
    groups: int = 64
    group_size: int = 16
    max_staleness: int = 0
    colocated: bool = False
    """The same GPUs draw and train, in turn."""
    weights: Weights = "adapter"
    spread: Literal["store", "broadcast"] = "broadcast"
    """How new weights come to the samplers."""
    shard: int = 0
    """Ranks that hold the base's weights together; 0: all, 1: each has them whole."""
    routing: Routing = "sticky"
    distribution: Literal["whole", "shares"] = "whole"
    """What the driver sends to each machine: the batch, or what its ranks need of it."""
    environments: float = math.inf
    """Environment steps at once."""

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.trainers if self.colocated else self.samplers + self.trainers


class Work(Protocol):
    """What is drawn."""

    def episode(self, batch: int, group: int, member: int) -> Episode:
        """That of a place."""


class Machine(Protocol):
    """How long a cluster takes over each operation."""

    clock: Clock
    drawing: Drawing
    trainer: Line
    turn: float
    """Seconds of the driver for a turn of an episode."""
    ended: float
    """Seconds of the driver for an episode that is over."""
    beside: bool
    """Whether samplers draw on while they load."""

    def sent(self, episodes: Sequence[Episode]) -> float:
        """Seconds of the driver to give a batch to the ranks."""

    def learned(self, episodes: Sequence[Episode]) -> float:
        """Seconds of the ranks from a batch to new weights."""

    def published(self) -> float:
        """Seconds of the ranks until the new weights have left them, and of samplers that do not draw ``beside`` it."""

    def spread(self) -> float:
        """Seconds from there to the samplers."""

    def loaded(self) -> float:
        """Seconds from there until they can be drawn from."""


class Cluster:
    """Satisfies ``Machine``: GPUs, by a table of costs."""

    def __init__(self, design: Design, costs: Costs) -> None:
        self.clock = Clock()
        self.drawing: Drawing = Pool(self.clock, design.samplers, costs.rates(design.weights), design.routing)
        self.trainer = Line(self.clock)
        self.turn, self.ended = costs.driver_turn, costs.driver_episode
        # An adapter is loaded beside what is being drawn; whole weights hold it up, and so does their broadcast.
        self.beside = design.weights == "adapter" or design.spread == "store"
        self._design, self._costs = design, costs
        self._shard = min(design.shard or design.trainers, design.trainers)

    def sent(self, episodes: Sequence[Episode]) -> float:
        """Written once, and sent by the driver's machine to each other one: whole, or in parts."""
        tokens = sum(each.tokens for each in episodes)
        machines = math.ceil(self._design.trainers / self._costs.node) if self._design.distribution == "whole" else 1
        return tokens * (self._costs.driver_token + self._costs.token_bytes * machines / self._costs.front_rate)

    def learned(self, episodes: Sequence[Episode]) -> float:
        """Episodes are dealt so that ranks have about as many tokens each."""
        tokens = dealt([each.tokens for each in episodes], self._design.trainers)
        seconds = self._costs.trained(tokens, self._design.weights, self._shard)[0]
        return seconds + (self._costs.switch_seconds if self._design.colocated else 0.0)

    def published(self) -> float:
        """Shards are gathered; to a store one machine writes them, and a broadcast holds the ranks to its end."""
        costs, size = self._costs, self._costs.bytes_of(self._design.weights)
        if self._design.colocated:
            return costs.switch_seconds
        gathered = costs.gather(size, self._shard) if self._design.weights == "full" else 0.0
        return gathered + size / (costs.front_rate if self._design.spread == "store" else costs.broadcast_rate)

    def spread(self) -> float:
        """Every machine of samplers reads the store."""
        if self._design.colocated or self._design.spread == "broadcast":
            return 0.0
        machines = math.ceil(self._design.samplers / self._costs.node)
        size = self._costs.bytes_of(self._design.weights)
        return max(size / self._costs.front_rate, size * machines / self._costs.store_rate)

    def loaded(self) -> float:
        """Until they are switched to."""
        return self._costs.adapter_load if self._design.weights == "adapter" else self._costs.whole_load


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went, once it went as it goes on."""

    seconds: float
    """Of a step."""
    used: dict[str, float]
    """How much of the time each was at work."""
    tokens: float
    """Drawn in a second."""
    lag: int
    """Versions by which a batch was older than what it trained, at most."""
    started: int
    """Episodes."""
    ended: int

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Simulation:
    """Steps of a loop that draws ``max_staleness`` batches ahead; ``run`` once."""

    def __init__(self, design: Design, work: Work, machine: Machine, *, steps: int = 0) -> None:
        """Without a number of ``steps``, as many as are needed to see how it goes on."""
        self.machine = machine
        self.driver = Line(machine.clock)
        self.environments = Line(machine.clock, design.environments)
        self._design, self._work = design, work
        self.steps = steps or least(design.max_staleness) + 2 * (design.max_staleness + 1)
        if self.steps < least(design.max_staleness):
            raise ValueError(f"{self.steps} steps never settle: at least {least(design.max_staleness)}")
        self._ready = self._begun = self._learning = 0  # versions to draw from; batches begun, and learned from
        self._drawn_by: dict[int, int] = {}
        self._batches: dict[int, list[Episode]] = {}
        self._open: dict[int, int] = {}
        self._busy = False
        self._marks: list[tuple[float, dict[str, float]]] = []
        self._tokens: dict[int, int] = {}
        self._lag = self._started = self._ended = 0

    def run(self) -> Outcome:
        """To the end of the last step. What is told is of the steps between, when as much is drawn ahead as may be."""
        self._draw_ahead()
        self.machine.clock.run()
        first, last = settled(self.steps, self._design.max_staleness)
        (began, before), (ended, after) = self._marks[first], self._marks[last]
        seconds = ended - began
        return Outcome(
            seconds=seconds / (last - first),
            used={name: (after[name] - before[name]) / seconds for name in before},
            tokens=sum(self._tokens[step] for step in range(first + 1, last + 1)) / seconds,
            lag=self._lag,
            started=self._started,
            ended=self._ended,
        )

    def _draw_ahead(self) -> None:
        while self._begun < self.steps and self._begun - self._design.max_staleness <= self._ready:
            batch, self._begun = self._begun, self._begun + 1
            self._drawn_by[batch] = self._ready
            groups, members = range(self._design.groups), range(self._design.group_size)
            episodes = [self._work.episode(batch, group, member) for group in groups for member in members]
            self._batches[batch], self._open[batch] = episodes, len(episodes)
            self._tokens[batch] = sum(turn.drawn for each in episodes for turn in each.turns)
            self._started += len(episodes)
            for each in episodes:
                self._turn(each, 0)

    def _turn(self, episode: Episode, turn: int) -> None:
        if turn == len(episode.turns):
            self.driver.take(self.machine.ended, lambda: self._end(episode.batch))
            return
        self.driver.take(
            self.machine.turn, lambda: self.machine.drawing.draw(episode, turn, lambda: self._said(episode, turn))
        )

    def _said(self, episode: Episode, turn: int) -> None:
        self.environments.take(episode.turns[turn].latency, lambda: self._turn(episode, turn + 1))

    def _end(self, batch: int) -> None:
        self._ended += 1
        self._open[batch] -= 1
        self._learn()

    def _learn(self) -> None:
        """From the next batch, once it is drawn and the ranks are free."""
        batch = self._learning
        if self._busy or self._open.get(batch) != 0:
            return
        self._busy = True
        self._lag = max(self._lag, batch - self._drawn_by[batch])
        episodes = self._batches.pop(batch)
        seconds = self.machine.learned(episodes)
        self.driver.take(self.machine.sent(episodes), lambda: self.machine.trainer.take(seconds, self._publish))

    def _publish(self) -> None:
        seconds = self.machine.published()
        self._hold_up(seconds)
        self.machine.trainer.take(seconds, self._learned)

    def _hold_up(self, seconds: float) -> None:
        if not self.machine.beside:
            self.machine.drawing.stall(seconds)

    def _learned(self) -> None:
        self._learning += 1
        self._busy = False
        self._marks.append((self.machine.clock.now, self._used()))
        self.machine.clock.after(self.machine.spread(), self._arrived, self._learning)
        self._learn()

    def _arrived(self, version: int) -> None:
        seconds = self.machine.loaded()
        self._hold_up(seconds)
        self.machine.clock.after(seconds, self._loaded, version)

    def _loaded(self, version: int) -> None:
        self._ready = max(self._ready, version)
        self._draw_ahead()

    def _used(self) -> dict[str, float]:
        return {
            "sampler": self.machine.drawing.used,
            "trainer": self.machine.trainer.used,
            "driver": self.driver.used,
            "environment": self.environments.used,
        }


def least(ahead: int) -> int:
    """Steps of a run that has a round of batches to be counted."""
    return 3 * ahead + 2


def settled(steps: int, ahead: int) -> tuple[int, int]:
    """The steps from whose end to whose end a run goes as it goes on: all batches are drawn ahead that may be.

    Batches that began together are learned from together, again and again: only whole rounds of them are counted.
    """
    rounds = (steps - 1 - 2 * ahead) // (ahead + 1)
    return ahead, ahead + rounds * (ahead + 1)


def dealt(costs: Sequence[int], ranks: int) -> list[float]:
    """Tokens of each rank: the dearest first, to whoever has least."""
    loads = [(0.0, rank) for rank in range(ranks)]
    for cost in sorted(costs, reverse=True):
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + cost, rank))
    return [load for load, _ in sorted(loads, key=lambda each: each[1])]


def simulated(design: Design, work: Work, costs: Costs, *, steps: int = 0) -> Outcome:
    """How a cluster of GPUs does."""
    return Simulation(design, work, Cluster(design, costs), steps=steps).run()
