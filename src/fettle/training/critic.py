"""A learned critic: where it stands, what it says of a batch, the credit that makes, and what it learns from."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fettle.advantages import normalized, token_gae
from fettle.config import AdamW, Critic, PolicyLossConfig, PolicySpec, Reading, RLRun
from fettle.engine import Policy
from fettle.rollouts import Group
from fettle.training.credit import penalties, with_streams
from fettle.types import Datum, Floats, Trajectory

PART = "critic"
"""Under this name a critic of its own is saved beside the policy."""


def policy_spec(run: RLRun) -> PolicySpec:
    """The policy that is trained, with a head where the critic stands on its weights."""
    if run.critic is None or run.critic.place != "head":
        return run.policy
    return run.policy.model_copy(update={"head": "value"})


def critic_spec(run: RLRun) -> PolicySpec | None:
    """A critic of its own, made as the policy is; None where there is none."""
    if run.critic is None or run.critic.place != "model":
        return None
    return run.policy.model_copy(update={"model": run.critic.model or run.policy.model, "head": "value"})


def with_value(loss: PolicyLossConfig, critic: Critic | None) -> PolicyLossConfig:
    """The policy's loss, with the critic's beside it where they share weights."""
    if critic is None or critic.place != "head":
        return loss
    return loss.model_copy(update={"value": critic.value})


def critic_optimizer(run: RLRun) -> AdamW:
    """Of a critic of its own."""
    return (run.critic.optimizer if run.critic is not None else None) or run.optimizer


def warming_up(run: RLRun, step: int) -> bool:
    """Whether only the critic learns in this step."""
    return run.critic is not None and step < run.critic.warmup_steps


async def valued(data: Sequence[Datum], critic: Policy) -> list[Datum]:
    """The data with ``old_values`` [T], and in the scalar ``bootstrap`` the worth of what each episode ended in.

    That is what the critic says after the last token where the environment was left before it was over, and else 0.
    A reply cut at the token limit has been scored as it is, and nothing more would have come of it: the limit is part
    of the task (Pardo et al., 2018, arXiv:1712.00378). Besides, no value at that length is ever trained.
    """
    values = (await critic.forward(data, Reading(of="values"))).values
    cut = [datum for datum in data if datum.scalars["unfinished"]]
    scores = iter((await critic.forward(cut, Reading(of="scores"))).scores if cut else [])
    ends = [next(scores) if datum.scalars["unfinished"] else 0.0 for datum in data]
    return [
        replace(with_streams(datum, old_values=said), scalars={**datum.scalars, "bootstrap": end})
        for datum, said, end in zip(data, values, ends, strict=True)
    ]


def judged(groups: Sequence[Group], data: Sequence[Datum], run: RLRun, critic: Critic) -> list[Datum]:
    """Data that were :func:`valued`, with ``returns``, and with ``advantages`` that compare the whole batch.

    The KL penalty, where it is part of the reward, is taken off token by token. Returns are made of raw advantages.
    """
    rewards = [turn_rewards(trajectory) for group in groups for trajectory in group.trajectories]
    costs = penalties(data, run) or [np.zeros(len(datum.tokens), np.float32) for datum in data]
    found = [
        token_gae(
            reward - cost,
            datum.streams["old_values"],
            datum.loss_mask,
            bootstrap=datum.scalars["bootstrap"],
            gamma=critic.gamma,
            lam=critic.gae_lambda,
        )
        for datum, reward, cost in zip(data, rewards, costs, strict=True)
    ]
    advantages = normalized(
        [raw for raw, _ in found],
        [datum.loss_mask for datum in data],
        [datum.group for datum in data],
        scope=critic.normalize,
    )
    return [
        with_streams(datum, advantages=scaled, returns=returns)
        for datum, scaled, (_, returns) in zip(data, advantages, found, strict=True)
    ]


def turn_rewards(trajectory: Trajectory) -> Floats:
    """What each token of an episode earned, [T]: the reward of a turn stands on the turn's last token."""
    spans = [len(turn.observation) + len(turn.completion.tokens) for turn in trajectory.turns]
    rewards = np.zeros(sum(spans), np.float32)
    rewards[np.cumsum(spans) - 1] = [turn.reward for turn in trajectory.turns]
    return rewards
