"""What can be said of a design without running it: no step is shorter than this."""

import math
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

from benchmarks.cluster_sim.costs import Costs
from benchmarks.cluster_sim.episodes import Episode
from benchmarks.cluster_sim.model import Cluster, Design, Work
from benchmarks.cluster_sim.samplers import Rates


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of a step that each part needs by itself."""

    draws: float
    """Samplers, always at the batch that serves most tokens."""
    longest: float
    """The longest episode, alone on a sampler."""
    learns: float
    """Trainers, until the new weights have left them."""
    drives: float
    """The driver, for turns, episodes and the batch."""
    sent: float
    """The driver, for the batch."""
    syncs: float
    """From there until the weights can be drawn from."""

    def step(self, max_staleness: int) -> float:
        """T >= max(L, W, d, (D + L + S) / (k + 1)), with D = max(W, longest): a batch is drawn, sent, learned from and
        published within k + 1 steps."""
        drawn = max(self.draws, self.longest)
        through = drawn + self.sent + self.learns + self.syncs
        return max(self.learns, self.draws, self.drives, through / (max_staleness + 1))

    def expected(self, max_staleness: int) -> float:
        """What a step is more likely to take: samplers are full until the last episodes begin, which are then alone."""
        through = self.draws + self.longest + self.sent + self.learns + self.syncs
        return max(self.learns, self.draws, self.drives, through / (max_staleness + 1))


def limits(design: Design, work: Work, costs: Costs, *, batches: int = 3) -> Limits:
    """Of a design, on the first batches of the work."""
    machine, rates = Cluster(design, costs), costs.rates(design.weights)
    drawn = [_batch(design, work, batch) for batch in range(batches)]
    draws = [_draws(design, costs, episodes) for episodes in drawn]
    longest = [max(_alone(episode, rates) for episode in episodes) for episodes in drawn]
    turns = [sum(len(each.turns) for each in episodes) * machine.turn for episodes in drawn]
    sent = [machine.sent(episodes) for episodes in drawn]
    learns = [machine.learned(episodes) for episodes in drawn]
    return Limits(
        draws=fmean(draws),
        longest=fmean(longest),
        learns=fmean(learns) + machine.published(),
        drives=fmean(turns) + fmean(sent) + len(drawn[0]) * machine.ended,
        sent=fmean(sent),
        syncs=machine.spread() + machine.loaded(),
    )


def split(gpus: int, design: Design, work: Work, costs: Costs) -> tuple[int, int]:
    """So many GPUs as samplers and trainers: what is expected to have the shortest step; of equals, more trainers."""
    if gpus == 1:
        return 1, 1
    shares = {max(1, min(gpus - 1, round(gpus * part / 16))) for part in range(1, 16)}

    def step(samplers: int) -> tuple[float, int]:
        tried = replace(design, samplers=samplers, trainers=gpus - samplers)
        return limits(tried, work, costs, batches=1).expected(design.max_staleness), samplers

    samplers = min(shares, key=step)
    return samplers, gpus - samplers


def _batch(design: Design, work: Work, batch: int) -> list[Episode]:
    places = product(range(design.groups), range(design.group_size))
    return [work.episode(batch, group, member) for group, member in places]


def _draws(design: Design, costs: Costs, episodes: list[Episode]) -> float:
    """Every token at the rate of samplers that hold equal parts of all episodes that may be under way (what a sampler
    gains from another sequence falls with their number), and each prompt read once for its group; answers always."""
    rates = costs.rates(design.weights)
    tokens = sum(turn.drawn for each in episodes for turn in each.turns)
    held = min(each.turns[0].told for each in episodes)
    sequences = min(rates.room / held, len(episodes) * (design.max_staleness + 1) / design.samplers)
    token = rates.token(max(1, math.floor(sequences)), sequences * held) / max(1.0, sequences)
    answers = sum(turn.told for each in episodes for turn in each.turns[1:])
    prompts = sum(each.turns[0].told for each in episodes if each.member == 0)
    return (tokens * token + rates.read(answers + prompts)) / design.samplers


def _alone(episode: Episode, rates: Rates) -> float:
    """An episode that shares its sampler with nobody, and holds nothing while it is drawn but what it was told."""
    return sum(turn.drawn * rates.token(1, 0.0) + turn.latency for turn in episode.turns)
