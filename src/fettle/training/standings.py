"""Policies side by side: the same held-out tasks put to each."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fettle.chat import Template
from fettle.config import RLRun, SamplingParams
from fettle.engine import Engine
from fettle.environments import GameSuite, Suite
from fettle.rollouts import to_datum
from fettle.training.credit import referred
from fettle.training.evaluation import evaluate
from fettle.training.learned import reward_model
from fettle.training.pipeline import StageEnd
from fettle.training.players import opponents, sides
from fettle.types import Trajectory

DIVERGENCE = "heldout/kl"


async def standings(
    run: RLRun,
    policies: Mapping[str, str | None],
    *,
    engine: Engine,
    suites: Sequence[Suite | GameSuite],
    template_of: Callable[[str], Template],
) -> dict[str, dict[str, float]]:
    """Each policy's held-out row, as ``run`` evaluates: true reward, learned reward if it has one, divergence.

    ``policies`` are weights, each with those that ``heldout/kl``, in nats a token, is measured from. The same weights
    get the same row, to the last bit, as within a run of those settings.
    """
    scorer = await reward_model(run, engine)
    rows = {}
    for weights, origin in policies.items():
        template = template_of(weights)
        params = heldout_params(run, template)
        result = await evaluate(
            suites,
            tasks=run.evaluation.tasks,
            sampler=await engine.sampler(weights),
            template=template,
            params=params,
            seed=run.seed,
            samples=run.evaluation.samples,
            opponents=await opponents(
                run, suites, engine=engine, template_of=template_of, params=params, start=str(run.policy.model)
            ),
            sides=partial(sides, run),
        )
        row = result.row
        if scorer is not None:
            row |= await scorer.heldout_row(result.trajectories)
        if origin is not None and run.evaluation.temperature > 0:  # what takes the likeliest has no distribution
            row[DIVERGENCE] = await _divergence(result.trajectories, engine, origin)
        rows[weights] = row
    return rows


def measuring_run(ends: Sequence[StageEnd]) -> RLRun | None:
    """The stage whose held-out tasks every policy of a pipeline is put to: the last one of reinforcement.

    Its model is where it started from, also where the recipe only describes that.
    """
    for end in reversed(ends):
        if isinstance(end.config, RLRun):
            started = end.config.policy.model_copy(update={"model": end.origin})
            return end.config.model_copy(update={"policy": started})
    return None


def policies_of(ends: Sequence[StageEnd]) -> dict[str, str | None]:
    """The policies that a pipeline started from and left, in order, each with the one it came from."""
    found: dict[str, str | None] = {}
    for end in ends:
        if end.is_policy:
            found.setdefault(end.origin, None)
            found.setdefault(end.left, end.origin)
    return found


@dataclass(frozen=True, slots=True)
class StageStanding:
    """How one stage ended, beside the others."""

    name: str
    steps: int
    seconds: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    digest: str | None


def stage_standings(ends: Sequence[StageEnd], rows: Mapping[str, Mapping[str, float]]) -> Iterator[StageStanding]:
    """Each stage's own held-out scores, with the ``rows`` of the policies that it started from and left."""
    for end in ends:
        summary = end.summary
        before, after = (rows.get(weights, {}) if end.is_policy else {} for weights in (end.origin, end.left))
        before = {name: value for name, value in before.items() if name != DIVERGENCE}  # which is an earlier stage's
        yield StageStanding(
            end.config.name,
            summary.steps,
            summary.seconds,
            {**summary.first, **before},
            {**(summary.last if end.is_policy else summary.best), **after},
            end.digest,
        )


def heldout_params(run: RLRun, template: Template) -> SamplingParams:
    """How held-out completions are drawn; each task has a seed of its own."""
    return SamplingParams(
        max_tokens=run.sampling.max_tokens,
        temperature=run.evaluation.temperature,
        stop=run.sampling.stop,
        stop_token_ids=tuple(sorted(template.end_token_ids)),
    )


async def _divergence(trajectories: Sequence[Trajectory], engine: Engine, origin: str) -> float:
    """KL(π‖origin) of the policy π that drew the trajectories, a token, by k1: the mean of log π - log origin.

    It is unbiased, and may be a little below 0 where the two are close; k3, which never is, has no use for policies as
    far apart as before and after supervised learning.
    """
    reference = await engine.sampler(origin)
    data = await asyncio.gather(*(referred(to_datum(trajectory), reference) for trajectory in trajectories))
    gaps = [
        (datum.streams["sampling_logprobs"] - datum.streams["reference_logprobs"])[datum.loss_mask > 0]
        for datum in data
    ]
    return float(np.concatenate(gaps).mean())
