"""From groups with rewards to data with advantages and weights: what a preset's row asks for, in order."""

import asyncio
from collections.abc import Sequence

import numpy as np

from fettle.advantages import ADVANTAGES, batch_normalized, overlong_penalty, return_to_go
from fettle.config import RLRun
from fettle.engine import Sampler
from fettle.losses import REDUCTIONS, kl_penalty
from fettle.rollouts import Group, shifted, to_datum
from fettle.types import Datum, Floats

References = list[list[Floats] | None]
"""For each group, for each trajectory, the reference's log-probabilities; None where no reference is asked for."""


def shaped(group: Group, run: RLRun) -> Group:
    """The group with the length penalty in its rewards, if one is asked for."""
    if run.overlong is None:
        return group
    limit, buffer = run.sampling.max_tokens, run.overlong.buffer
    trajectories = tuple(
        shifted(t, overlong_penalty(t.num_sampled, max_tokens=limit, buffer=buffer), "overlong") for t in group.trajectories
    )
    return Group(group.task, trajectories, group.failures)


async def reference_logprobs(groups: Sequence[Group], reference: Sampler | None) -> References:
    """Every sequence scored by the reference, in one batch."""
    if reference is None:
        return [None] * len(groups)

    async def scored(group: Group) -> list[Floats]:
        data = [to_datum(trajectory) for trajectory in group.trajectories]
        rows = await asyncio.gather(*(reference.logprobs(d.tokens.tolist(), temperature=d.temperature) for d in data))
        return [np.array([row or 0.0 for row in found], np.float32) * d.loss_mask for found, d in zip(rows, data, strict=True)]

    return list(await asyncio.gather(*map(scored, groups)))


def credited(groups: Sequence[Group], run: RLRun, references: References) -> list[Datum]:
    """One datum a trajectory, with ``advantages``, ``weights`` and, where the loss reads them, ``reference_logprobs``."""
    bare = [[to_datum(trajectory) for trajectory in group.trajectories] for group in groups]
    penalties = [_penalties(data, run, found) for data, found in zip(bare, references, strict=True)]
    advantages = _advantages(groups, bare, penalties, run)
    flat = [datum for data in bare for datum in data]
    weights = REDUCTIONS[run.reduction.type]([datum.loss_mask for datum in flat], run.sampling.max_tokens)
    in_loss = run.loss.kl is not None and run.loss.kl.place == "loss"
    scored = [row for found in references for row in found or []] if in_loss else []
    return [
        Datum(
            tokens=datum.tokens,
            loss_mask=datum.loss_mask,
            streams={
                **datum.streams,
                "advantages": advantages[index],
                "weights": weights[index],
                **({"reference_logprobs": scored[index]} if in_loss else {}),
            },
            temperature=datum.temperature,
            group=datum.group,
        )
        for index, datum in enumerate(flat)
    ]


def kl_row(groups: Sequence[Group], references: References) -> dict[str, float]:
    """The divergence of the drawn tokens from the reference, whether or not it is in the loss."""
    if not groups or references[0] is None:
        return {}
    total = tokens = 0.0
    for group, found in zip(groups, references, strict=True):
        for trajectory, reference in zip(group.trajectories, found or [], strict=True):
            datum = to_datum(trajectory)
            total += float(kl_penalty(datum.streams["sampling_logprobs"], reference, "k3") @ datum.loss_mask)
            tokens += float(datum.loss_mask.sum())
    return {"policy/kl": total / tokens}


def _penalties(data: Sequence[Datum], run: RLRun, references: list[Floats] | None) -> list[Floats]:
    """What each token's reward loses to the divergence; zero unless the KL is placed in the reward."""
    kl = run.loss.kl
    if kl is None or kl.place != "reward" or references is None:
        return [np.zeros(len(datum.tokens), np.float32) for datum in data]
    return [
        kl.coefficient * kl_penalty(datum.streams["sampling_logprobs"], reference, kl.estimator) * datum.loss_mask
        for datum, reference in zip(data, references, strict=True)
    ]


def _advantages(
    groups: Sequence[Group], data: Sequence[Sequence[Datum]], penalties: Sequence[Sequence[Floats]], run: RLRun
) -> list[Floats]:
    if run.advantage == "batch_normalized":
        returns, masks = [], []
        for group, rows, taken in zip(groups, data, penalties, strict=True):
            for trajectory, datum, penalty in zip(group.trajectories, rows, taken, strict=True):
                returns.append(trajectory.reward + return_to_go(-penalty))
                masks.append(datum.loss_mask)
        return batch_normalized(returns, masks)
    found: list[Floats] = []
    for group, rows, taken in zip(groups, data, penalties, strict=True):
        rewards = [reward - float(penalty.sum()) for reward, penalty in zip(group.rewards, taken, strict=True)]
        for advantage, datum in zip(ADVANTAGES[run.advantage](rewards), rows, strict=True):
            found.append(np.float32(advantage) * datum.loss_mask)
    return found
