"""Documented losses made into core losses: advantages, targets and weights of a whole batch, before any split.

Every function takes a loss's documented settings and a whole batch, and says what can be told before a model is asked.
Axes: T tokens of one sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fettle.advantages import (
    credit,
    explained_variance,
    normalized,
    quadratic_penalty,
    quadratic_slope,
    return_to_go,
    token_gae,
    token_rewards,
    zero_variance,
)
from fettle.config import DPO, KL, PPO, CausalLM, ImportanceSampling, LossConfig, RewardModeling, Value, documented
from fettle.losses.kl import k3
from fettle.losses.reduce import sequence_mean, token_mean
from fettle.types import Datum, Floats

POLICY_LOGPROBS = "policy_logprobs"
"""The stream of log-probabilities under the policy as it is at the call."""


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A batch that a core loss can be evaluated on, in any split; ``metrics`` are of the whole of it."""

    data: list[Datum]
    loss: LossConfig
    metrics: dict[str, float] = field(default_factory=dict)


def causal_lm(settings: documented.CausalLM, data: Sequence[Datum]) -> Lowered:
    """Every trained token counts the same."""
    return Lowered(_weighted_by_token(data), CausalLM())


def ppo(settings: documented.PPO, data: Sequence[Datum]) -> Lowered:
    """Rewards to go against the values that the batch brings, or else against the batch's mean; normalised."""
    made, metrics = _credited(data, gamma=1.0, lam=1.0)
    eps = settings.clip_epsilon
    loss = PPO(clip_low=eps, clip_high=eps, kl=_kl(settings.beta), entropy_coefficient=settings.entropy_coef)
    return Lowered(made, loss, metrics)


def enhanced_ppo(settings: documented.EnhancedPPO, data: Sequence[Datum]) -> Lowered:
    """Generalised advantage estimation against ``values``, normalised; raw returns for the critic."""
    made, metrics = _credited(data, gamma=settings.gamma, lam=settings.gae_lambda if settings.use_gae else 1.0)
    eps = settings.clip_epsilon
    value = None
    if settings.use_gae and settings.value_loss_coef:
        value = Value(coefficient=settings.value_loss_coef, clip=eps if settings.clip_value_loss else None)
    loss = PPO(
        clip_low=eps,
        clip_high=eps,
        kl=_kl(settings.beta),
        entropy_coefficient=settings.entropy_coef,
        value=value,
    )
    return Lowered(made, loss, metrics)


def conservative_ppo(settings: documented.ConservativePPO, data: Sequence[Datum]) -> Lowered:
    """``coef · max(0, KL - threshold)²`` of the batch's mean divergence, as a sum over tokens.

    The gradient of the penalty is its slope there times the gradient of the mean, so the slope is the coefficient of
    a KL term. The divergence is that of the policy as it is at the call.
    """
    made, metrics = _credited(data, gamma=1.0, lam=1.0)
    limit, coefficient = settings.max_kl_divergence, settings.conservative_coef
    measured = divergence(made, [datum.streams[POLICY_LOGPROBS] for datum in made])
    metrics |= {
        "max_kl_threshold": limit,
        "kl_violation": float(measured > limit),
        "kl_penalty": quadratic_penalty(measured, limit=limit, coefficient=coefficient),
    }
    slope = quadratic_slope(measured, limit=limit, coefficient=coefficient)
    eps = settings.clip_epsilon
    return Lowered(made, PPO(clip_low=eps, clip_high=eps, kl=_kl(slope)), metrics)


def grpo(settings: documented.GRPO, data: Sequence[Datum]) -> Lowered:
    """Rewards against their group's mean over its unbiased standard deviation; each response counts the same."""
    rewards, masks = [datum.scalars["reward"] for datum in data], [datum.loss_mask for datum in data]
    groups = [datum.group for datum in data]
    advantages = credit("group_normalized", groups=groups, rewards=rewards, loss_masks=masks)
    by_group = {name: [r for r, g in zip(rewards, groups, strict=True) if g == name] for name in groups}
    metrics = _moments(advantages, masks) | {
        "reward_mean": float(np.mean(rewards)),
        "zero_variance_groups": float(sum(map(zero_variance, by_group.values()))),
    }
    made = [_with(d, advantages=a, weights=w) for d, a, w in zip(data, advantages, sequence_mean(masks), strict=True)]
    eps = settings.clip_epsilon
    return Lowered(made, PPO(clip_low=eps, clip_high=eps, kl=_kl(settings.beta)), metrics)


def importance_sampling(settings: documented.ImportanceSampling, data: Sequence[Datum]) -> Lowered:
    """One ratio a sequence where the behaviour's log-probabilities are of sequences, and one a token where of tokens.

    Advantages that the batch does not bring are rewards to go, less the batch's mean reward.
    """
    masks = [datum.loss_mask for datum in data]
    whole = of_sequences(data)
    rewards = [_rewards(datum) for datum in data]
    mean = float(np.mean([r.sum() for r in rewards]))
    advantages: list[Floats] = [
        d.streams["advantages"]
        if "advantages" in d.streams
        else ((return_to_go(r) - mean) * d.loss_mask).astype(np.float32)
        for d, r in zip(data, rewards, strict=True)
    ]
    shares = sequence_mean(masks) if whole else token_mean(masks)
    made = [
        _with(d, advantages=a, weights=w, sampling_logprobs=_behavior(d))
        for d, a, w in zip(data, advantages, shares, strict=True)
    ]
    level: Literal["token", "sequence"] = "sequence" if whole else "token"
    loss = ImportanceSampling(level=level, clip_ratio=settings.clip_ratio, kl=_kl(settings.beta))
    return Lowered(made, loss, _moments(advantages, masks) | {"reward_mean": mean})


def dpo(settings: documented.DPO, data: Sequence[Datum]) -> Lowered:
    """Every pair counts the same."""
    return Lowered(_weighted_by_pair(data), DPO(beta=settings.beta, label_smoothing=settings.label_smoothing))


def reward_modeling(settings: documented.RewardModeling, data: Sequence[Datum]) -> Lowered:
    """Every pair counts the same; the margin stands on the logit."""
    loss = RewardModeling(temperature=settings.temperature, margin=settings.margin, margin_place="logit")
    return Lowered(_weighted_by_pair(data), loss)


def of_sequences(data: Sequence[Datum]) -> bool:
    """Whether the behaviour's log-probabilities are of whole sequences."""
    return all("behavior_logprob" in datum.scalars for datum in data)


def divergence(data: Sequence[Datum], logprobs: Sequence[Floats]) -> float:
    """The k3 estimate of how far the policy is from the reference, in nats, as a mean over trained tokens."""
    trained = [datum.loss_mask > 0 for datum in data]
    ours = np.concatenate([row[where] for row, where in zip(logprobs, trained, strict=True)])
    theirs = [d.streams["reference_logprobs"][where] for d, where in zip(data, trained, strict=True)]
    found = k3(torch.from_numpy(ours)[None], torch.from_numpy(np.concatenate(theirs))[None])
    return float(found.double().mean())


def _credited(data: Sequence[Datum], *, gamma: float, lam: float) -> tuple[list[Datum], dict[str, float]]:
    """The data with ``advantages``, ``returns``, ``old_values`` and ``weights``, and what is told of the batch."""
    masks, rewards = [datum.loss_mask for datum in data], [_rewards(datum) for datum in data]
    earned = float(np.mean([r.sum() for r in rewards]))
    old = [d.streams.get("old_values", np.full(len(d.tokens), earned, np.float32)) for d in data]
    values = [d.streams.get("values", before) for d, before in zip(data, old, strict=True)]
    found = [
        token_gae(r, v, mask, bootstrap=0.0, gamma=gamma, lam=lam)
        for r, v, mask in zip(rewards, values, masks, strict=True)
    ]
    raw, returns = [advantages for advantages, _ in found], [targets for _, targets in found]
    explained = explained_variance(values, returns, masks)
    metrics = _moments(raw, masks) | {
        "value_mean": float(_trained(values, masks).mean()),
        "return_mean": float(_trained(returns, masks).mean()),
        "reward_mean": earned,
        # Where all returns are equal there is nothing to explain, and no number to tell.
        **({} if explained is None else {"explained_variance": explained}),
    }
    scaled = normalized(raw, masks, [datum.group for datum in data], scope="batch")
    made = [
        _with(d, advantages=a, returns=r, old_values=v, weights=w)
        for d, a, r, v, w in zip(data, scaled, returns, old, token_mean(masks), strict=True)
    ]
    return made, metrics


def _rewards(datum: Datum) -> Floats:
    """Rewards [T]: that of a whole sequence on its last trained token, those of tokens where they stand.

    What stands on a token that is not trained on was earned by the trained one before it, or by nobody.
    """
    if "reward" in datum.scalars:
        return token_rewards(datum.scalars["reward"], datum.loss_mask)
    rewards = np.zeros(len(datum.tokens), np.float32)
    earners = np.maximum.accumulate(np.where(datum.loss_mask > 0, np.arange(len(rewards)), -1))
    np.add.at(rewards, earners[earners >= 0], datum.streams["rewards"][earners >= 0])
    return rewards


def _behavior(datum: Datum) -> Floats:
    """``sampling_logprobs`` [T]; that of a whole sequence is shared among its tokens, of which only the sum counts."""
    if "behavior_logprob" not in datum.scalars:
        return datum.streams["sampling_logprobs"]
    share = datum.scalars["behavior_logprob"] / float(datum.loss_mask.sum())
    return datum.loss_mask * np.float32(share)


def _weighted_by_token(data: Sequence[Datum]) -> list[Datum]:
    shares = token_mean([datum.loss_mask for datum in data])
    return [_with(datum, weights=share) for datum, share in zip(data, shares, strict=True)]


def _weighted_by_pair(data: Sequence[Datum]) -> list[Datum]:
    return [replace(datum, scalars={**datum.scalars, "weight": 2 / len(data)}) for datum in data]


def _moments(advantages: Sequence[Floats], masks: Sequence[Floats]) -> dict[str, float]:
    """Of the advantages of trained tokens, before they are normalised."""
    tokens = _trained(advantages, masks)
    return {"advantage_mean": float(tokens.mean()), "advantage_std": float(tokens.std())}


def _trained(rows: Sequence[Floats], masks: Sequence[Floats]) -> NDArray[np.float64]:
    joined = np.concatenate([row[mask > 0] for row, mask in zip(rows, masks, strict=True)])
    return joined.astype(np.float64)


def _kl(coefficient: float) -> KL | None:
    return KL(coefficient=coefficient, estimator="k3") if coefficient > 0 else None


def _with(datum: Datum, **streams: Floats) -> Datum:
    return replace(datum, streams={**datum.streams, **streams})
