"""The batch that one step learns from: groups drawn from the policy, in rounds if some of them cannot teach."""

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fettle.advantages import zero_variance
from fettle.chat import Template
from fettle.config import Finish, RLRun, SamplingParams
from fettle.config.rl import UNGROUPED
from fettle.engine import Policy, Sampler
from fettle.environments import GameSuite, Suite
from fettle.errors import EnvironmentFault
from fettle.randomness import key
from fettle.rollouts import Following, Group, Seat, games, group
from fettle.rollouts.together import together
from fettle.training.learned import Scorer
from fettle.training.players import POLICY, Players, player_row
from fettle.training.timing import Busy, TimedGames, TimedSuite
from fettle.types import Failed, Span

Played = Mapping[str, Group]
"""What came of one task's episodes, for each player; the one player of a task that is no game is the policy."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one step learns from."""

    groups: tuple[Group, ...]
    uninformative: int
    """Groups drawn whose rewards were all equal."""
    failures: tuple[Failed, ...]
    """Episodes that broke."""
    policy_version: int
    """The oldest that drew a token here."""
    mean_version: float
    """Over tokens."""
    drawn_tokens: int
    scoring: float = 0.0
    """The share of the drawing's seconds in which environments and rewards were at work, and not the sampler alone."""
    others: Mapping[str, "Batch"] = field(default_factory=dict)
    """What players learn from that have policies of their own, by player."""
    row: Mapping[str, float] = field(default_factory=dict)
    """How the players of games fared, and what became of replies under way at an update, as metrics."""


class Drawer:
    """The policy among its tasks."""

    def __init__(
        self,
        run: RLRun,
        suites: Sequence[Suite | GameSuite],
        template: Template,
        policy: Policy,
        *,
        players: Players,
        scorer: Scorer | None = None,
    ) -> None:
        """What a ``scorer`` says is what episodes earn, in the place of what their environments say."""
        self.suites = suites
        self.template = template
        self.scorer = scorer
        self._run = run
        self._policy = policy
        self._players = players
        self._newest: Sampler | None = None

    def params(self, *name: object) -> SamplingParams:
        """Sampling settings with a seed of that name."""
        sampling = self._run.sampling
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            stop=sampling.stop,
            stop_token_ids=tuple(sorted(self.template.end_token_ids)),
            seed=key(self._run.seed, *name),
        )

    async def draw(self, step: int) -> Batch:
        """The groups of one step, from the policy as it is now; how ``updated`` changes that, ``in_flight`` says.

        Raises:
            EnvironmentFault: more episodes of the step failed than may.
        """
        began, busy = time.perf_counter(), Busy()
        sampler = await self._sampler()
        seats = await self._players.seats(sampler, self.params())
        drawn = await self._rounds(seats, step, busy)
        batch = self._batch(drawn, POLICY, step)
        return replace(
            batch,
            scoring=busy.seconds / (time.perf_counter() - began),
            others={player: self._batch(drawn, player, step) for player in self._players.own},
            row=player_row(g for played in drawn for g in played.values()) | _in_flight_row(sampler, batch.groups),
        )

    async def updated(self) -> None:
        """The policy was updated: replies that are being drawn go on with the new weights, where that is asked for."""
        if not isinstance(self._run.in_flight, Finish):
            self._newest = await self._policy.sampler()

    async def _sampler(self) -> Sampler:
        """What a step's replies are drawn from."""
        newest = await self._policy.sampler()
        if isinstance(self._run.in_flight, Finish):
            return newest
        self._newest = newest
        return Following(lambda: self._newest or newest, self._run.in_flight)

    def _batch(self, drawn: Sequence[Played], learner: str, step: int) -> Batch:
        """What one learner takes from what was drawn."""
        mine = [self._learned(played, learner) for played in drawn]
        groups = [g for each in mine for g in each]
        chosen = self._chosen([each for each in mine if each], step)
        spans = _spans(chosen)
        return Batch(
            groups=chosen,
            uninformative=sum(not _informative(g) for g in groups),
            failures=tuple(failure for g in groups for failure in g.failures),
            policy_version=min(span.policy_version for span in spans),
            mean_version=statistics.fmean((s.policy_version for s in spans), (s.end - s.start for s in spans)),
            drawn_tokens=sum(t.num_sampled for g in groups for t in g.trajectories),
        )

    def _learned(self, played: Played, learner: str) -> list[Group]:
        return [g for player, g in played.items() if self._players.learner(player) == learner]

    async def _rounds(self, seats: Mapping[str, Seat], step: int, busy: Busy) -> list[Played]:
        """Groups until enough of them can teach, where dynamic sampling asks for that; one round otherwise."""
        rounds = self._run.dynamic_sampling.max_rounds if self._run.dynamic_sampling else 1
        wanted = self._run.groups_per_step
        drawn: list[Played] = []
        for number in range(rounds):
            first = (step * rounds + number) * wanted
            more = await together(self._played(seats, index, busy) for index in range(first, first + wanted))
            drawn += await self._rewarded(more, busy)
            if sum(any(map(_informative, self._learned(played, POLICY))) for played in drawn) >= wanted:
                break
        return drawn

    def _chosen(self, drawn: Sequence[Sequence[Group]], step: int) -> tuple[Group, ...]:
        """Groups of as many tasks as a step learns from, those that can teach first, otherwise in the order drawn."""
        least = 1 if self._run.advantage in UNGROUPED else 2  # one alone has nothing to be compared with
        failures = [failure for groups in drawn for g in groups for failure in g.failures]
        episodes = len(failures) + sum(len(g.trajectories) for groups in drawn for g in groups)
        if len(failures) > self._run.limits.failed_share * episodes:
            raise EnvironmentFault(
                f"{len(failures)} of the {episodes} episodes of step {step + 1} failed, and limits.failed_share allows "
                f"{self._run.limits.failed_share:g} of them; the first: {failures[0].reason}"
            )
        usable = [kept for groups in drawn if (kept := [g for g in groups if len(g.trajectories) >= least])]
        if not usable:
            first = f"; the first: {failures[0].reason}" if failures else ", as nobody spoke"
            raise EnvironmentFault(f"no group of step {step + 1} has {least} episodes that did not fail{first}")
        wanted = self._run.groups_per_step
        if len(drawn) > wanted:
            usable = sorted(usable, key=lambda groups: not any(map(_informative, groups)))[:wanted]
        return tuple(g for groups in usable for g in groups)

    async def _rewarded(self, drawn: list[Played], busy: Busy) -> list[Played]:
        """With what the reward model says, where there is one; it reads them as one batch, whichever ended first."""
        if self.scorer is None:
            return drawn
        with busy:
            groups = iter(await self.scorer.rewarded([each for played in drawn for each in played.values()]))
        return [{player: next(groups) for player in played} for played in drawn]

    async def _played(self, seats: Mapping[str, Seat], index: int, busy: Busy) -> Played:
        weights = [config.weight for config in self._run.environments]
        choice = random.Random(f"{self._run.seed}/suite/{index}").choices(self.suites, weights)[0]
        params, name = self.params("rollout", index), f"{choice.name}/{index}"
        if isinstance(choice, GameSuite):
            taken = {player: seats.get(player, seats[POLICY]) for player in choice.players}
            return await games(
                choice.training_task(index),
                TimedGames(choice, busy),
                size=self._run.group_size,
                seats={player: _seeded(seat, params.seed) for player, seat in taken.items()},
                limits=self._run.limits,
                name=name,
            )
        return {
            POLICY: await group(
                choice.training_task(index),
                TimedSuite(choice, busy),
                size=self._run.group_size,
                sampler=seats[POLICY].sampler,
                template=self.template,
                params=params,
                limits=self._run.limits,
                name=name,
            )
        }


def _seeded(seat: Seat, seed: int) -> Seat:
    return replace(seat, params=seat.params.model_copy(update={"seed": seed}))


def _informative(drawn: Group) -> bool:
    return len(drawn.trajectories) > 1 and not zero_variance(drawn.rewards)


def _spans(groups: Sequence[Group]) -> list[Span]:
    """Of every reply."""
    return [span for g in groups for t in g.trajectories for turn in t.turns for span in turn.completion.spans]


def _in_flight_row(sampler: Sampler, groups: Sequence[Group]) -> dict[str, float]:
    if not isinstance(sampler, Following):
        return {}
    replies = [turn.completion for g in groups for t in g.trajectories for turn in t.turns]
    return {
        "rollout/across_updates": statistics.fmean(len(reply.spans) > 1 for reply in replies),
        "rollout/given_up_tokens": float(sampler.given_up),
    }
