"""What is drawn: conversations between a policy and an environment that takes its time."""

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from fettle.randomness import key


class Turn(NamedTuple):
    """One reply, and what came of it."""

    told: int
    """Tokens that are new to the policy: the prompt at first, then what the environment answered."""
    drawn: int
    latency: float
    """Seconds until the environment answers."""


class Episode(NamedTuple):
    """One conversation. Those of a group begin with the same prompt."""

    batch: int
    group: int
    member: int
    turns: tuple[Turn, ...]

    @property
    def tokens(self) -> int:
        """All that is trained on, prompt and answers included."""
        return sum(turn.told + turn.drawn for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Work:
    """How episodes are: lengths and latencies are log-normal, and a few answers are late."""

    turns: int = 4
    prompt: int = 1024
    reply: float = 256
    """Tokens of a reply, on average."""
    reply_sigma: float = 0.8
    task_sigma: float = 0.4
    """How much longer some tasks' replies are than others', for all of their group."""
    most: int = 2048
    """Tokens of a reply, at most."""
    answer: int = 256
    """Tokens that the environment answers with."""
    latency: float = 1.0
    """Seconds until it answers, at the median."""
    latency_sigma: float = 1.0
    late: float = 0.002
    """How many answers are late."""
    late_seconds: float = 30.0
    seed: int = 0

    def episode(self, batch: int, group: int, member: int) -> Episode:
        """The same for the same place, whatever the cluster: designs are compared on the same episodes."""
        return _drawn(self, batch, group, member)


@lru_cache(maxsize=2**17)  # every design asks for the same ones
def _drawn(work: Work, batch: int, group: int, member: int) -> Episode:
    task = Random(key(work.seed, "task", batch, group)).gauss(0.0, work.task_sigma)
    own = Random(key(work.seed, "episode", batch, group, member))
    middle = math.log(work.reply) - (work.reply_sigma**2 + work.task_sigma**2) / 2
    turns = []
    for place in range(work.turns):
        drawn = math.exp(middle + task + own.gauss(0.0, work.reply_sigma))
        latency = work.latency * math.exp(own.gauss(0.0, work.latency_sigma))
        latency += work.late_seconds if own.random() < work.late else 0.0
        turns.append(Turn(work.answer if place else work.prompt, min(work.most, max(1, round(drawn))), latency))
    return Episode(batch, group, member, tuple(turns))
