"""Reinforcement learning: draw groups, credit them, step. One loop for every engine and every preset."""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fettle.advantages import zero_variance
from fettle.chat import Template
from fettle.config import RLRun, SamplingParams
from fettle.engine import Engine, Policy, Sampler
from fettle.environments import Suite
from fettle.errors import EnvironmentFault
from fettle.randomness import key
from fettle.rollouts import Group, group, stream
from fettle.tracking import Transcript
from fettle.training.credit import credited, divergence, scored, shaped, teaching, weighted
from fettle.training.evaluation import Evaluation, evaluate
from fettle.training.schedule import learning_rate
from fettle.training.session import Session, Summary
from fettle.types import Datum, Failed, ForwardResult, OptimResult, Trajectory

TRANSCRIPTS = 8
"""Held-out conversations written out at each evaluation."""


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
    seconds: float


async def train(
    run: RLRun, *, engine: Engine, suites: Sequence[Suite], template: Template, session: Session
) -> Summary:
    """Train a policy on the suites' tasks, from where the session stands to its last step.

    Raises:
        EnvironmentFault: every episode of a step failed.
    """
    policy = await session.policy(engine, run.policy)
    learner = _Learner(run, suites, template, policy)
    if run.loss.kl is not None:
        learner.reference = await engine.sampler(str(run.policy.model))
    if session.progress.checkpoint is None:
        await _evaluate(learner, session, done=0)
        await session.finish_step(policy, 0)
    ahead = run.max_staleness // run.minibatches
    async for step, batch in stream(session.remaining, learner.draw, ahead=ahead, barriers=session.barriers()):
        started = time.perf_counter()
        row = await learner.learn(step, batch)
        row["time/step"] = batch.seconds + time.perf_counter() - started
        row["speed/tokens_per_second"] = batch.drawn_tokens / row["time/step"]
        session.log(step + 1, row)
        session.failures(step + 1, "training", batch.failures)
        if (step + 1) % run.evaluation.every == 0 or step + 1 == run.steps:
            await _evaluate(learner, session, done=step + 1)
        if await session.finish_step(policy, step + 1):
            break
    await policy.close()
    return session.summary()


class _Learner:
    """The policy, and what it learns with."""

    def __init__(self, run: RLRun, suites: Sequence[Suite], template: Template, policy: Policy) -> None:
        self.run = run
        self.suites = suites
        self.template = template
        self.policy = policy
        self.reference: Sampler | None = None

    def params(self, *name: object) -> SamplingParams:
        """Sampling settings with a seed of that name."""
        sampling = self.run.sampling
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            stop=sampling.stop,
            stop_token_ids=tuple(sorted(self.template.end_token_ids)),
            seed=key(self.run.seed, *name),
        )

    async def draw(self, step: int) -> Batch:
        """The groups of one step, from the policy as it is now."""
        started = time.perf_counter()
        sampler = await self.policy.sampler()
        rounds = self.run.dynamic_sampling.max_rounds if self.run.dynamic_sampling else 1
        wanted = self.run.groups_per_step
        drawn: list[Group] = []
        for number in range(rounds):
            first = (step * rounds + number) * wanted
            drawn += await asyncio.gather(*(self._group(sampler, index) for index in range(first, first + wanted)))
            if rounds == 1 or sum(map(_informative, drawn)) >= wanted:
                break
        usable = [g for g in drawn if len(g.trajectories) >= min(2, self.run.group_size)]
        if not usable:
            failures = [failure for g in drawn for failure in g.failures]
            raise EnvironmentFault(
                f"every episode of step {step + 1} failed, {len(failures)} of them; the first: {failures[0].reason}"
            )
        # Groups that can teach come first, in the order drawn; the sort is stable.
        chosen = sorted(usable, key=lambda g: not _informative(g))[:wanted] if rounds > 1 else usable
        return Batch(
            groups=tuple(chosen),
            uninformative=sum(not _informative(g) for g in drawn),
            failures=tuple(failure for g in drawn for failure in g.failures),
            policy_version=sampler.policy_version,
            drawn_tokens=sum(t.num_sampled for g in drawn for t in g.trajectories),
            seconds=time.perf_counter() - started,
        )

    async def learn(self, step: int, batch: Batch) -> dict[str, float]:
        """Credit a batch and make its optimizer steps; returns the step's metrics."""
        started = time.perf_counter()
        run = self.run
        groups = [shaped(g, run) for g in batch.groups]
        # The reference is scored before the update, in one batch for all minibatches.
        data = credited(groups, await scored(groups, self.reference), run)
        share = -(-len(groups) // run.minibatches)
        parts = [slice(i, i + share) for i in range(0, len(groups), share)]
        pending = []
        for number, part in enumerate(parts):
            ready = teaching(weighted(data[part], run), run.loss)
            pending.append(self._submit(ready, step * run.minibatches + number))
        outcomes = await asyncio.gather(*pending)
        row = _batch_row(batch, groups) | divergence(data) | _policy_row(outcomes)
        row["advantage/nonzero"] = statistics.fmean(bool(d.streams["advantages"].any()) for part in data for d in part)
        row["policy/learning_rate"] = self._rate(step * run.minibatches)
        row["policy/lag"] = float(outcomes[0][1].policy_version - 1 - batch.policy_version)
        row["time/sample"] = batch.seconds
        row["time/train"] = time.perf_counter() - started
        return row

    def _submit(self, data: Sequence[Datum], step: int) -> "asyncio.Future[tuple[ForwardResult, OptimResult]]":
        adam = self.run.optimizer.model_copy(update={"learning_rate": self._rate(step)})
        result = asyncio.ensure_future(self.policy.forward_backward(data, self.run.loss))
        stepped = asyncio.ensure_future(self.policy.optim_step(adam))
        return asyncio.gather(result, stepped)

    def _rate(self, step: int) -> float:
        steps = self.run.steps * self.run.minibatches
        return learning_rate(self.run.schedule, self.run.optimizer.learning_rate, step=step, steps=steps)

    async def _group(self, sampler: Sampler, index: int) -> Group:
        weights = [config.weight for config in self.run.environments]
        choice = random.Random(f"{self.run.seed}/suite/{index}").choices(self.suites, weights)[0]
        return await group(
            choice.training_task(index),
            choice,
            size=self.run.group_size,
            sampler=sampler,
            template=self.template,
            params=self.params("rollout", index),
            name=f"{choice.name}/{index}",
        )


async def _evaluate(learner: _Learner, session: Session, *, done: int) -> Evaluation:
    run = learner.run
    params = learner.params("evaluation").model_copy(update={"temperature": run.evaluation.temperature})
    result = await evaluate(
        learner.suites,
        tasks=run.evaluation.tasks,
        sampler=await learner.policy.sampler(),
        template=learner.template,
        params=params,
        seed=run.seed,
    )
    await session.evaluated(learner.policy, done, result.reward, result.row)
    session.transcripts(done, [_page(trajectory) for trajectory in result.trajectories[:TRANSCRIPTS]])
    session.episodes(done, result.trajectories)
    session.failures(done, "evaluation", result.failures)
    return result


def _informative(drawn: Group) -> bool:
    return len(drawn.trajectories) > 1 and not zero_variance(drawn.rewards)


def _page(trajectory: Trajectory) -> Transcript:
    expected = trajectory.task.data.get("answer")
    note = f"expected answer: {expected}" if expected is not None else ""
    return Transcript(trajectory.task.id, trajectory.messages, trajectory.reward, trajectory.components, note)


def _batch_row(batch: Batch, groups: Sequence[Group]) -> dict[str, float]:
    trajectories = [t for g in groups for t in g.trajectories]
    rewards = [t.reward for t in trajectories]
    names = sorted({name for t in trajectories for name in t.components})
    episodes = len(trajectories) + len(batch.failures)
    return {
        "reward/mean": statistics.fmean(rewards),
        "reward/std": statistics.pstdev(rewards),
        **{
            f"reward/component/{name}": statistics.fmean(t.components.get(name, 0.0) for t in trajectories)
            for name in names
        },
        "rollout/failed": len(batch.failures) / episodes,
        "rollout/truncated": statistics.fmean(t.truncated for t in trajectories),
        "rollout/tokens_mean": statistics.fmean(t.num_sampled for t in trajectories),
        "rollout/uninformative_groups": float(batch.uninformative),
        "progress/step_tokens": float(batch.drawn_tokens),
    }


def _policy_row(outcomes: Sequence[tuple[ForwardResult, OptimResult]]) -> dict[str, float]:
    tokens = sum(result.num_tokens for result, _ in outcomes)
    names = outcomes[0][0].metrics
    means = {f"policy/{name}": sum(r.metrics[name] * r.num_tokens for r, _ in outcomes) / tokens for name in names}
    return {
        **means,
        "policy/loss": statistics.fmean(result.loss for result, _ in outcomes),
        "policy/grad_norm": statistics.fmean(stepped.grad_norm for _, stepped in outcomes),
        "policy/skipped_steps": float(sum(stepped.skipped for _, stepped in outcomes)),
        "policy/version": float(outcomes[-1][1].policy_version),
    }
