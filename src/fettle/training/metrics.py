"""The rows of a reinforcement step: what was drawn, how it was credited, what it did to the policy."""

import statistics
from collections.abc import Sequence

from fettle.losses import reward_penalty
from fettle.rollouts import Group
from fettle.training.drawing import Batch
from fettle.types import Datum, Floats, ForwardResult, OptimResult

Outcome = tuple[ForwardResult, OptimResult]
"""Of one optimizer step."""


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
        "rollout/failed": len(batch.failures) / episodes,
        "rollout/truncated": statistics.fmean(t.truncated for t in trajectories),
        "rollout/tokens_mean": statistics.fmean(t.num_sampled for t in trajectories),
        "rollout/uninformative_groups": float(batch.uninformative),
        "progress/step_tokens": float(batch.drawn_tokens),
    }


def divergence(data: Sequence[Sequence[Datum]]) -> dict[str, float]:
    """The k3 estimate of how far the policy that drew the tokens is from the reference."""
    flat = [datum for rows in data for datum in rows if "reference_logprobs" in datum.streams]
    if not flat:
        return {}
    total = sum(float(_k3(datum).sum()) for datum in flat)
    return {"policy/kl": total / sum(float(d.loss_mask.sum()) for d in flat)}


def _k3(datum: Datum) -> Floats:
    sampled, reference = datum.streams["sampling_logprobs"], datum.streams["reference_logprobs"]
    return reward_penalty(sampled, reference, estimator="k3", coefficient=1.0) * datum.loss_mask


def credit_row(data: Sequence[Sequence[Datum]]) -> dict[str, float]:
    """How much of the batch has credit to learn from."""
    return {"advantage/nonzero": statistics.fmean(bool(d.streams["advantages"].any()) for rows in data for d in rows)}


def policy_row(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """What the optimizer steps of a batch came to, each token counting the same."""
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
