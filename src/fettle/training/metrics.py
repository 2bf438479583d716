"""The rows of a reinforcement step: what was drawn, how it was credited, what it did to the policy."""

import statistics
from collections.abc import Sequence

import numpy as np

from fettle.advantages import explained_variance
from fettle.losses import reward_penalty
from fettle.rollouts import Group
from fettle.training.drawing import Batch
from fettle.training.updates import Outcome
from fettle.types import Datum, Floats, ForwardResult, Trajectory


def batch_row(batch: Batch, groups: Sequence[Group]) -> dict[str, float]:
    """What was drawn; ``groups`` hold the rewards that are learned from."""
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
        **_measured(trajectories),
        "rollout/failed": len(batch.failures) / episodes,
        "rollout/truncated": statistics.fmean(t.truncated for t in trajectories),
        "rollout/tokens_mean": statistics.fmean(t.num_sampled for t in trajectories),
        "rollout/uninformative_groups": float(batch.uninformative),
        "progress/step_tokens": float(batch.drawn_tokens),
    }


def _measured(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Means of what environments measured, each over the episodes that have it."""
    names = sorted({name for t in trajectories for name in t.measured})
    found = {name: [t.measured[name] for t in trajectories if name in t.measured] for name in names}
    return {f"measured/{name}": statistics.fmean(values) for name, values in found.items()}


def divergence(data: Sequence[Sequence[Datum]]) -> dict[str, float]:
    """The k3 estimate of how far the policy that drew the tokens is from the reference."""
    flat = [datum for rows in data for datum in rows if "reference_logprobs" in datum.streams]
    if not flat:
        return {}
    sampled, reference = ([d.streams[name] for d in flat] for name in ("sampling_logprobs", "reference_logprobs"))
    return {"policy/kl": mean_k3(sampled, reference, [d.loss_mask for d in flat])}


def mean_k3(logprobs: Sequence[Floats], others: Sequence[Floats], loss_masks: Sequence[Floats]) -> float:
    """The mean of k3 over trained tokens: an estimate of KL(p‖q), where ``logprobs`` are p's and p drew the tokens."""
    found = (reward_penalty(p, q, estimator="k3", coefficient=1.0) for p, q in zip(logprobs, others, strict=True))
    total = sum(float((each * mask).sum()) for each, mask in zip(found, loss_masks, strict=True))
    return total / sum(float(mask.sum()) for mask in loss_masks)


def credit_row(data: Sequence[Sequence[Datum]]) -> dict[str, float]:
    """How much of the batch has credit to learn from."""
    return {"advantage/nonzero": statistics.fmean(bool(d.streams["advantages"].any()) for rows in data for d in rows)}


def critic_row(data: Sequence[Sequence[Datum]]) -> dict[str, float]:
    """How well a critic knew what would come, over trained tokens; advantages as they are before normalisation."""
    flat = [datum for rows in data for datum in rows if "returns" in datum.streams]
    if not flat:
        return {}
    masks = [datum.loss_mask for datum in flat]
    values, returns = ([datum.streams[name] for datum in flat] for name in ("old_values", "returns"))
    V, R = (np.concatenate([x[m > 0] for x, m in zip(xs, masks, strict=True)]) for xs in (values, returns))
    explained = explained_variance(values, returns, masks)
    return {
        **({"critic/explained_variance": explained} if explained is not None else {}),
        "critic/value_mean": float(V.mean()),
        "critic/return_mean": float(R.mean()),
        "critic/advantage_mean": float((R - V).mean()),
        "critic/advantage_std": float((R - V).std()),
    }


def outcome_row(outcomes: Sequence[Outcome], area: str) -> dict[str, float]:
    """What a model's optimizer steps on a batch came to, each token counting the same; greatest and least stay so."""
    names = set.intersection(*(set(result.metrics) for result, _ in outcomes))
    # What a value head on the policy reports is the critic's.
    told = {name: "critic" if name.startswith("value_") else area for name in names}
    return {
        **{f"{told[name]}/{name}": _joined(name, [result for result, _ in outcomes]) for name in sorted(names)},
        f"{area}/loss": statistics.fmean(result.loss for result, _ in outcomes),
        f"{area}/grad_norm": statistics.fmean(stepped.grad_norm for _, stepped in outcomes),
        f"{area}/skipped_steps": float(sum(stepped.skipped for _, stepped in outcomes)),
        f"{area}/version": float(outcomes[-1][1].policy_version),
    }


def _joined(name: str, results: Sequence[ForwardResult]) -> float:
    found = [result.metrics[name] for result in results]
    if name.endswith("_max"):
        return max(found)
    if name.endswith("_min"):
        return min(found)
    tokens = sum(result.num_tokens for result in results)
    return sum(value * result.num_tokens for value, result in zip(found, results, strict=True)) / tokens
