"""From groups with rewards to data with advantages and weights: what a preset's row asks for, in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fettle.advantages import credit, overlong_penalty
from fettle.config import PolicyLossConfig, RLRun
from fettle.engine import Sampler
from fettle.losses import LOSSES, reward_penalty, weights
from fettle.rollouts import Group, shifted, to_datum
from fettle.types import Datum, Floats


def shaped(group: Group, run: RLRun) -> Group:
    """The group with the length penalty in its rewards, if one is asked for."""
    if run.overlong is None:
        return group
    limit, buffer = run.sampling.max_tokens, run.overlong.buffer
    trajectories = tuple(
        shifted(t, overlong_penalty(t.num_sampled, max_tokens=limit, buffer=buffer), "overlong")
        for t in group.trajectories
    )
    return replace(group, trajectories=trajectories)


async def scored(groups: Sequence[Group], reference: Sampler | None) -> list[list[Datum]]:
    """The groups as data, with ``reference_logprobs`` where there is a reference; all are scored in one batch."""
    data = [[to_datum(trajectory) for trajectory in group.trajectories] for group in groups]
    if reference is None:
        return data
    compared = (asyncio.gather(*(referred(datum, reference) for datum in rows)) for rows in data)
    return list(await asyncio.gather(*compared))


async def referred(datum: Datum, reference: Sampler) -> Datum:
    """The datum with ``reference_logprobs``, at its own temperature."""
    found = await reference.logprobs(datum.tokens.tolist(), temperature=datum.temperature)
    logprobs = np.array([0.0, *found[1:]], np.float32) * datum.loss_mask
    return with_streams(datum, reference_logprobs=logprobs)


def credited(groups: Sequence[Group], data: Sequence[Sequence[Datum]], run: RLRun) -> list[list[Datum]]:
    """The data with ``advantages``, which compare the whole batch, whatever minibatches it is split into later."""
    flat = [datum for rows in data for datum in rows]
    advantages = iter(
        credit(
            run.advantage,
            groups=[datum.group for datum in flat],
            rewards=[reward for group in groups for reward in group.rewards],
            loss_masks=[datum.loss_mask for datum in flat],
            penalties=penalties(flat, run),
        )
    )
    return [[with_streams(datum, advantages=next(advantages)) for datum in rows] for rows in data]


def weighted(data: Sequence[Sequence[Datum]], run: RLRun) -> list[Datum]:
    """The data of one optimizer step in a row, with the ``weights`` that make their sum the reduction asked for.

    Completions that a limit cut short weigh nothing, and are not counted, where they are to be left out.
    """
    flat = [datum for rows in data for datum in rows]
    left_out = [run.mask_truncated and bool(datum.scalars["truncated"]) for datum in flat]
    masks = [datum.loss_mask * (not out) for datum, out in zip(flat, left_out, strict=True)]
    shares = masks if all(left_out) else weights(run.reduction, masks, max_tokens=run.sampling.max_tokens)
    return [with_streams(datum, weights=share) for datum, share in zip(flat, shares, strict=True)]


def teaching(data: Sequence[Datum], loss: PolicyLossConfig) -> list[Datum]:
    """Those that can move the policy. Where a loss promises no gradient without advantage, the others need not be run.

    Their weights were made with the others there, so the gradient is the same; metrics of the policy (entropy, ratio)
    are then means over those that are run. If none can teach, all stay, so that a step is still a step.
    """
    weighing = [datum for datum in data if datum.weights.any()]
    if _pulls_without_advantage(loss):
        return weighing or list(data)
    return [datum for datum in weighing if datum.streams["advantages"].any()] or list(data)


def _pulls_without_advantage(loss: PolicyLossConfig) -> bool:
    """Whether something of the loss pulls where there is no advantage."""
    terms = (loss.kl, loss.value, loss.entropy_coefficient, loss.proximal_coefficient)
    return any(terms) or "zero_advantage" not in LOSSES[loss.type].contracts


def penalties(data: Sequence[Datum], run: RLRun) -> list[Floats] | None:
    """What the divergence costs each token in the reward, where the KL has its place there."""
    kl = run.loss.kl
    if kl is None or kl.place != "reward":
        return None
    return [_penalty(datum, kl.estimator, kl.coefficient) for datum in data]


def _penalty(datum: Datum, estimator: str, coefficient: float) -> Floats:
    sampled, reference = datum.streams["sampling_logprobs"], datum.streams["reference_logprobs"]
    penalty = reward_penalty(sampled, reference, estimator=estimator, coefficient=coefficient)
    return penalty * datum.loss_mask


def with_streams(datum: Datum, **streams: Floats) -> Datum:
    """The datum with further streams."""
    return replace(datum, streams={**datum.streams, **streams})
