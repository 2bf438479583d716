"""Scoring a sampler on held-out tasks, with an interval."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from fettle.chat import Template
from fettle.config import USUAL_LIMITS, Limits, SamplingParams
from fettle.engine import Sampler
from fettle.environments import GameSuite, Suite
from fettle.errors import EnvironmentFault
from fettle.randomness import key
from fettle.rollouts import WON, Seat, episode, match
from fettle.rollouts.together import together
from fettle.training.measures import distinct_n, pass_at_k
from fettle.types import Failed, Task, Trajectory

NGRAMS = (1, 2)
"""Lengths of the n-grams by which the diversity of replies is told."""

Z = 1.959963984540054  # two-sided 95 %


Interval = tuple[float, float]
"""The ends of a 95 % interval."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Held-out scores: mean reward, its 95 % interval, and the episodes behind it."""

    reward: float
    low: float
    high: float
    by_suite: Mapping[str, float]
    pass_at: Mapping[int, float]
    """For each k, the share of tasks that at least one of k completions solves."""
    trajectories: tuple[Trajectory, ...]
    failures: tuple[Failed, ...]
    win_rates: Mapping[str, float] = field(default_factory=dict)
    """Of games, against the opponents: by environment and player, and over all of them under no name."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Of each of ``by_suite``."""
    pass_intervals: Mapping[int, Interval] = field(default_factory=dict)
    """Of each of ``pass_at``."""
    win_intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Of each of ``win_rates``."""

    @property
    def row(self) -> dict[str, float]:
        """As metrics."""
        return {
            "heldout/reward": self.reward,
            **({"heldout/reward_low": self.low, "heldout/reward_high": self.high} if math.isfinite(self.low) else {}),
            "heldout/tasks": float(len({(t.group, t.task.id) for t in self.trajectories})),
            "heldout/failed": float(len(self.failures)),
            **self._lengths(),
            **self._diversity(),
            **{f"heldout/pass@{k}": share for k, share in self.pass_at.items()},
            **{f"heldout/pass@{k}_low": low for k, (low, _) in self.pass_intervals.items()},
            **{f"heldout/pass@{k}_high": high for k, (_, high) in self.pass_intervals.items()},
            **(
                {f"heldout/reward/{name}": score for name, score in self.by_suite.items()}
                if len(self.by_suite) > 1
                else {}
            ),
            **{"/".join(filter(None, ("heldout/win_rate", name))): share for name, share in self.win_rates.items()},
            **self._win_interval(),
        }

    def _win_interval(self) -> dict[str, float]:
        """Nothing where no game was played."""
        ends = self.win_intervals.get("", ())
        return dict(zip(("heldout/win_rate_low", "heldout/win_rate_high"), ends, strict=False))

    def _lengths(self) -> dict[str, float]:
        """Nothing of what was drawn where no tokens are told."""
        drawn = [trajectory.num_sampled for trajectory in self.trajectories]
        return {"heldout/tokens_mean": statistics.fmean(drawn)} if any(drawn) else {}

    def _diversity(self) -> dict[str, float]:
        """Of what the policy said, turn by turn."""
        said = [turn.completion.tokens for trajectory in self.trajectories for turn in trajectory.turns]
        shares = {f"heldout/distinct_{n}": distinct_n(said, n) for n in NGRAMS}
        return {name: share for name, share in shares.items() if share is not None}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A held-out task, and whom it is put to."""

    suite: Suite | GameSuite
    label: str
    task: Task
    sample: int
    player: str = ""
    """Whom the sampler plays, where it is a game."""


async def evaluate(
    suites: Sequence[Suite | GameSuite],
    *,
    tasks: int,
    sampler: Sampler,
    template: Template,
    params: SamplingParams,
    limits: Limits = USUAL_LIMITS,
    seed: int,
    samples: int = 1,
    opponents: Mapping[str, Seat] | None = None,
    sides: Callable[[GameSuite], Sequence[str]] = attrgetter("players"),
) -> Evaluation:
    """``samples`` completions for each of ``tasks`` held-out tasks, shared among the suites.

    A game is played once for each of its ``sides``, which the sampler takes in turn against the ``opponents``; it plays
    those players itself that have none.

    A task's draws are keyed by the task, so two evaluations differ by their weights alone. The mean and its interval
    are over tasks, for the completions of one task are no independent draws.

    Raises:
        EnvironmentFault: every episode failed.
    """

    async def played(asked: _Asked) -> Trajectory | Failed:
        # The first completion of a task is the same however many follow it.
        named = key(seed, "heldout", asked.task.id, *([asked.sample] if asked.sample else []))
        own = Seat(sampler, template, params.model_copy(update={"seed": named}))
        if isinstance(asked.suite, GameSuite):
            return await _side(asked, asked.suite, own, opponents or {}, limits)
        return await episode(
            asked.task,
            asked.suite.environment(),
            sampler=sampler,
            template=template,
            params=own.params,
            limits=limits,
            group=asked.label,
        )

    asked = list(_asked(suites, tasks, samples, sides))
    outcomes = await together(map(played, asked))
    trajectories = tuple(outcome for outcome in outcomes if isinstance(outcome, Trajectory))
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, Failed))
    if not trajectories:
        raise EnvironmentFault(
            f"every one of {len(failures)} held-out episodes failed; the first: {failures[0].reason}"
        )
    sides_asked = list(dict.fromkeys(side_of(each.label, each.player) for each in asked))
    return _evaluation(sides_asked, trajectories, failures, samples)


def _evaluation(
    of: Sequence[str], trajectories: tuple[Trajectory, ...], failures: tuple[Failed, ...], samples: int
) -> Evaluation:
    """The scores of what was played, in all and by label."""
    by_task = _rewards_by_task(trajectories)
    rewards = [statistics.fmean(earned) for earned in by_task.values()]
    low, high = interval(rewards)
    of_suites = {
        label: of_suite
        for label in of
        if (of_suite := [reward for (group, _), reward in zip(by_task, rewards, strict=True) if group == label])
    }
    chances = chances_at(_solved_by_task(trajectories), samples) if samples > 1 else {}
    wins = _wins(trajectories)
    return Evaluation(
        statistics.fmean(rewards),
        low,
        high,
        {label: statistics.fmean(of_suite) for label, of_suite in of_suites.items()},
        {k: statistics.fmean(each) for k, each in chances.items()},
        trajectories,
        failures,
        {name: statistics.fmean(shares) for name, shares in wins.items()},
        {label: interval(of_suite) for label, of_suite in of_suites.items()},
        {k: interval(each) for k, each in chances.items()},
        {name: interval(shares) for name, shares in wins.items()},
    )


def _asked(
    suites: Sequence[Suite | GameSuite], tasks: int, samples: int, sides: Callable[[GameSuite], Sequence[str]]
) -> Iterator[_Asked]:
    for (suite, share), label in zip(_shares(suites, tasks), labels(suites), strict=True):
        players = sides(suite) if isinstance(suite, GameSuite) else ("",)
        for task in suite.heldout_tasks()[:share]:
            for player in players:
                for sample in range(samples):
                    yield _Asked(suite, label, task, sample, player)


async def _side(
    asked: _Asked, suite: GameSuite, own: Seat, opponents: Mapping[str, Seat], limits: Limits
) -> Trajectory | Failed:
    """One player's side of a game; that of a player who never came to speak has failed."""
    taken = {player: own if player == asked.player else opponents.get(player, own) for player in suite.players}
    seats = {
        # As the sampler's own, but for what each template says ends a reply.
        player: replace(seat, params=own.params.model_copy(update={"stop_token_ids": seat.params.stop_token_ids}))
        for player, seat in taken.items()
    }
    found = await match(asked.task, suite.game(), seats=seats, limits=limits, group=asked.label)
    if isinstance(found, Failed):
        return replace(found, group=side_of(asked.label, asked.player))
    unheard = Failed(asked.task, f"{asked.player} never came to speak", side_of(asked.label, asked.player))
    return found.get(asked.player, unheard)


def _wins(trajectories: Sequence[Trajectory]) -> dict[str, list[float]]:
    """The share of each task's games that was won: by environment and player, and over all of them under no name."""
    wins: dict[str, dict[str, list[float]]] = {}
    for side in trajectories:
        if WON in side.measured:
            for name in ("", side.group):
                wins.setdefault(name, {}).setdefault(side.task.id, []).append(side.measured[WON])
    several = len(wins) > 2
    return {
        name: list(map(statistics.fmean, by_task.values())) for name, by_task in wins.items() if not name or several
    }


def side_of(label: str, player: str) -> str:
    """What one player's side of an environment's games is called."""
    return f"{label}/{player}" if player else label


def chances_at(by_task: Iterable[Sequence[bool]], samples: int) -> dict[int, list[float]]:
    """For k = 1, 2, 4, ... and ``samples``, each task's chance that one of k completions is right.

    ``by_task`` says of each completion whether it is. Tasks that lost a completion to a failure are left out.
    """
    right = [sum(each) for each in by_task if len(each) == samples]
    sizes = sorted({*(2**power for power in range(samples.bit_length())), samples})
    return {k: [pass_at_k(correct, samples, k) for correct in right] for k in sizes} if right else {}


def _rewards_by_task(trajectories: Sequence[Trajectory]) -> dict[tuple[str, str], list[float]]:
    """What each task's completions earned, by suite and task."""
    found: dict[tuple[str, str], list[float]] = {}
    for trajectory in trajectories:
        found.setdefault((trajectory.group, trajectory.task.id), []).append(trajectory.reward)
    return found


def _solved_by_task(trajectories: Sequence[Trajectory]) -> Iterable[list[bool]]:
    """Whether each completion of a task is right, by suite and task."""
    found: dict[tuple[str, str], list[bool]] = {}
    for trajectory in trajectories:
        found.setdefault((trajectory.group, trajectory.task.id), []).append(_solved(trajectory))
    return found.values()


def _solved(trajectory: Trajectory) -> bool:
    """Whether it earned 1 or more but for what it was charged: a right answer stays right if calls cost something."""
    return sum(value for value in trajectory.components.values() if value > 0) >= 1


def interval(rewards: Sequence[float]) -> Interval:
    """A 95 % interval of the mean.

    Rewards within [0, 1] get Wilson's score interval (1927), which stays honest when all are equal; a variable in
    [0, 1] varies at most as much as a coin of the same mean, so it holds for partial credit too. Others get the
    normal interval.
    """
    n, mean = len(rewards), statistics.fmean(rewards)
    if all(0 <= reward <= 1 for reward in rewards):
        centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)
    half = Z * statistics.stdev(rewards) / math.sqrt(n) if n > 1 else math.inf
    return mean - half, mean + half


def labels(suites: Sequence[Suite | GameSuite]) -> list[str]:
    """The suites' names; those that share one are numbered."""
    names = [suite.name for suite in suites]
    return [name if names.count(name) == 1 else f"{name}-{names[:at].count(name) + 1}" for at, name in enumerate(names)]


def _shares(suites: Sequence[Suite | GameSuite], tasks: int) -> list[tuple[Suite | GameSuite, int]]:
    base, extra = divmod(tasks, len(suites))
    return [(suite, base + (index < extra)) for index, suite in enumerate(suites)]
