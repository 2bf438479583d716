"""The batch that one step learns from: groups drawn from the policy, in rounds if some of them cannot teach."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fettle.advantages import zero_variance
from fettle.chat import Template
from fettle.config import RLRun, SamplingParams
from fettle.config.rl import UNGROUPED
from fettle.engine import Policy, Sampler
from fettle.environments import Suite
from fettle.errors import EnvironmentFault
from fettle.randomness import key
from fettle.rollouts import Group, group
from fettle.training.learned import Scorer
from fettle.training.timing import Busy, TimedSuite
from fettle.types import Failed


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one step learns from."""

    groups: tuple[Group, ...]
    uninformative: int
    """Groups drawn whose rewards were all equal."""
    failures: tuple[Failed, ...]
    """Episodes that broke."""
    policy_version: int
    drawn_tokens: int
    scoring: float
    """The share of the drawing's seconds in which environments and rewards were at work, and not the sampler alone."""


class Drawer:
    """The policy among its tasks."""

    def __init__(
        self, run: RLRun, suites: Sequence[Suite], template: Template, policy: Policy, *, scorer: Scorer | None = None
    ) -> None:
        """What a ``scorer`` says is what episodes earn, in the place of what their environments say."""
        self.suites = suites
        self.template = template
        self.scorer = scorer
        self._run = run
        self._policy = policy

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
        """The groups of one step, from the policy as it is now.

        Raises:
            EnvironmentFault: more episodes of the step failed than may.
        """
        began, busy = time.perf_counter(), Busy()
        sampler = await self._policy.sampler()
        drawn = await self._rounds(sampler, step, busy)
        return Batch(
            groups=self._chosen(drawn, step),
            uninformative=sum(not _informative(g) for g in drawn),
            failures=tuple(failure for g in drawn for failure in g.failures),
            policy_version=sampler.policy_version,
            drawn_tokens=sum(t.num_sampled for g in drawn for t in g.trajectories),
            scoring=busy.seconds / (time.perf_counter() - began),
        )

    async def _rounds(self, sampler: Sampler, step: int, busy: Busy) -> list[Group]:
        """Groups until enough of them can teach, where dynamic sampling asks for that; one round otherwise."""
        rounds = self._run.dynamic_sampling.max_rounds if self._run.dynamic_sampling else 1
        wanted = self._run.groups_per_step
        drawn: list[Group] = []
        for number in range(rounds):
            first = (step * rounds + number) * wanted
            drawn += await asyncio.gather(
                *(self._group(sampler, index, busy) for index in range(first, first + wanted))
            )
            if sum(map(_informative, drawn)) >= wanted:
                break
        return drawn

    def _chosen(self, drawn: Sequence[Group], step: int) -> tuple[Group, ...]:
        """As many groups as a step learns from, those that can teach first, otherwise in the order drawn."""
        least = 1 if self._run.advantage in UNGROUPED else 2  # one alone has nothing to be compared with
        failures = [failure for g in drawn for failure in g.failures]
        episodes = len(failures) + sum(len(g.trajectories) for g in drawn)
        if len(failures) > self._run.limits.failed_share * episodes:
            raise EnvironmentFault(
                f"{len(failures)} of the {episodes} episodes of step {step + 1} failed, and limits.failed_share allows "
                f"{self._run.limits.failed_share:g} of them; the first: {failures[0].reason}"
            )
        usable = [g for g in drawn if len(g.trajectories) >= least]
        if not usable:
            raise EnvironmentFault(
                f"no group of step {step + 1} has {least} episodes that did not fail; the first: {failures[0].reason}"
            )
        wanted = self._run.groups_per_step
        return tuple(sorted(usable, key=lambda g: not _informative(g))[:wanted] if len(drawn) > wanted else usable)

    async def _group(self, sampler: Sampler, index: int, busy: Busy) -> Group:
        weights = [config.weight for config in self._run.environments]
        choice = TimedSuite(random.Random(f"{self._run.seed}/suite/{index}").choices(self.suites, weights)[0], busy)
        drawn = await group(
            choice.training_task(index),
            choice,
            size=self._run.group_size,
            sampler=sampler,
            template=self.template,
            params=self.params("rollout", index),
            limits=self._run.limits,
            name=f"{choice.name}/{index}",
        )
        if self.scorer is None:
            return drawn
        with busy:
            return await self.scorer.rewarded(drawn)


def _informative(drawn: Group) -> bool:
    return len(drawn.trajectories) > 1 and not zero_variance(drawn.rewards)
