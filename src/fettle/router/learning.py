"""One update of the policy and its critic by PPO: the credit and the losses are those of language models.

Axes: T decisions in a row, E episodes at once, N decisions of a rollout, B of them in a mini-batch. To a loss each
decision is a sequence of one token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.advantages import batch_normalized, explained_variance, gae, planning_credit
from fettle.config import PPO, Value
from fettle.config.router import RLLM, RouterPPO
from fettle.losses import REDUCTIONS, evaluate
from fettle.router.episodes import Rollout
from fettle.router.heads import Parameters, Scale, logits, rescale, values
from fettle.router.nouns import Doubles
from fettle.types import Floats

EPSILON = 1e-5
"""Of Adam."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of every tensor."""


@dataclass(slots=True)
class Learner:
    """What is trained, and what is known of how it was."""

    parameters: Parameters
    optimizer: torch.optim.Adam
    scale: Scale

    @staticmethod
    def of(parameters: Parameters, *, learning_rate: float) -> "Learner":
        """One that has learned nothing yet."""
        optimizer = torch.optim.Adam(list(parameters.values()), lr=learning_rate, eps=EPSILON)
        return Learner(parameters, optimizer, Scale())


def learned(learner: Learner) -> dict[str, NDArray[Any]]:
    """Copies of the tensors and of the optimizer's moments."""
    kept: dict[str, NDArray[Any]] = {}
    for name, tensor in learner.parameters.items():
        kept[f"tensor/{name}"] = tensor.detach().numpy().copy()
        for moment, value in learner.optimizer.state.get(tensor, {}).items():
            kept[f"{moment}/{name}"] = value.numpy().copy()
    return kept


def put_back(learner: Learner, kept: Mapping[str, NDArray[Any]]) -> None:
    """Make tensors and moments what they were."""
    learner.optimizer.state.clear()
    with torch.no_grad():
        for name, tensor in learner.parameters.items():
            tensor.copy_(torch.from_numpy(kept[f"tensor/{name}"]))
            if f"{MOMENTS[0]}/{name}" in kept:
                learner.optimizer.state[tensor] = {
                    moment: torch.from_numpy(kept[f"{moment}/{name}"].copy()) for moment in MOMENTS
                }


@dataclass(frozen=True, slots=True)
class Batch:
    """A rollout in a row, each [N] but for the observations [N, D]."""

    observations: Tensor
    modes: Tensor
    streams: Mapping[str, Tensor]
    """``sampling_logprobs``, ``advantages``, ``returns`` and ``old_values``, the latter two as the critic says them."""


def learn(learner: Learner, rollout: Rollout, config: RLLM, rng: np.random.Generator) -> dict[str, float]:
    """Change the learner by one rollout; returns what there is to tell of it.

    Raises:
        LossInputError: a number of the rollout is not finite.
    """
    ppo, trainer = config.ppo, config.trainer
    alpha = config.hicra.alpha if config.hicra.enabled else None
    advantages, returns = _credit(rollout, ppo)
    before = learner.scale
    if trainer.normalize_values:
        learner.scale = before.after(returns)
        rescale(learner.parameters, before, learner.scale)
    batch = _batch(rollout, advantages, returns, learner.scale, alpha)
    told: list[dict[str, float]] = []
    epochs = 0
    for _ in range(ppo.update_epochs):
        order = torch.from_numpy(rng.permutation(len(batch.modes)))
        told += [_step(learner, batch, taken, ppo) for taken in torch.split(order, ppo.mini_batch_size)]
        epochs += 1
        kl, entropy = _distance(learner.parameters, batch, ppo)
        if trainer.target_kl is not None and kl > trainer.target_kl:
            break
    everywhere = [np.ones(returns.size, np.float32)]
    expected = rollout.values.ravel().astype(np.float32)
    explained = explained_variance([expected], [returns.astype(np.float32)], everywhere)
    return {
        **{name: float(np.mean([each[name] for each in told])) for name in told[0]},
        "entropy": entropy,
        "approx_kl": kl,
        "epochs": float(epochs),
        **({} if explained is None else {"explained_variance": explained}),
    }


def _credit(rollout: Rollout, ppo: RouterPPO) -> tuple[Doubles, Doubles]:
    """Advantages and returns [N], episode after episode by GAE; a cut episode counts what would have come."""
    columns = [
        gae(
            rollout.rewards[:, at],
            rollout.values[:, at],
            next_values=rollout.next_values[:, at],
            truncated=rollout.truncated[:, at].tolist(),
            gamma=ppo.gamma,
            lam=ppo.gae_lambda,
        )
        for at in range(rollout.rewards.shape[1])
    ]
    advantages, returns = (np.stack(each, axis=1).ravel() for each in zip(*columns, strict=True))
    return advantages, returns


def _batch(rollout: Rollout, advantages: Doubles, returns: Doubles, scale: Scale, alpha: float | None) -> Batch:
    everywhere = np.ones(advantages.size, np.float32)
    [normal] = batch_normalized([advantages], [everywhere])
    credit = normal if alpha is None else planning_credit(normal, rollout.planning.ravel(), alpha=alpha)
    streams: dict[str, NDArray[Any]] = {
        "sampling_logprobs": rollout.logprobs.ravel(),
        "advantages": credit,
        "returns": (returns - scale.mean) / scale.deviation,
        "old_values": (rollout.values.ravel() - scale.mean) / scale.deviation,
    }
    return Batch(
        torch.from_numpy(rollout.observations.reshape(advantages.size, -1)),
        torch.from_numpy(rollout.modes.ravel()),
        {name: torch.from_numpy(values.astype(np.float32)) for name, values in streams.items()},
    )


def _step(learner: Learner, batch: Batch, taken: Tensor, ppo: RouterPPO) -> dict[str, float]:
    """One optimizer step on the decisions ``taken``."""
    loss, metrics = _losses(learner.parameters, batch, taken, ppo)
    ones: list[Floats] = [np.ones(len(taken), np.float32)]
    [weights] = REDUCTIONS["token_mean"](ones)
    total = (torch.from_numpy(weights)[:, None] * loss).sum()
    learner.optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters.values(), ppo.max_grad_norm)
    learner.optimizer.step()
    means = {name: float(metric.mean()) for name, metric in metrics.items()}
    value = means.get("value_loss", 0.0)
    policy = float(total.detach()) - ppo.value_loss_coef * value + ppo.entropy_coef * means["entropy"]
    beyond = (metrics["ratio"] - 1).abs() > ppo.clip_coef
    return {
        "policy_loss": policy,
        "value_loss": value,
        "clip_frac": float(beyond.float().mean()),
        "gradient_norm": float(norm),
    }


def _losses(parameters: Parameters, batch: Batch, taken: Tensor, ppo: RouterPPO) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of each decision [B, 1], and its metrics."""
    observations = batch.observations[taken]
    logprobs = logits(parameters, observations).log_softmax(-1)
    said = {
        "logprobs": logprobs.gather(-1, batch.modes[taken][:, None]),
        "entropy": -(logprobs.exp() * logprobs).sum(-1, keepdim=True),
        "values": values(parameters, observations)[:, None],
    }
    inputs = {name: stream[taken][:, None] for name, stream in batch.streams.items()}
    loss, metrics = evaluate(settings(ppo), said, {**inputs, "loss_mask": torch.ones(len(taken), 1)})
    return loss, {**metrics, "entropy": said["entropy"].detach()}


def settings(ppo: RouterPPO) -> PPO:
    """The loss by the names that language models use. Values are not held near the old ones: that is not documented."""
    critic = Value(coefficient=ppo.value_loss_coef, clip=None) if ppo.value_loss_coef else None
    return PPO(clip_low=ppo.clip_coef, clip_high=ppo.clip_coef, entropy_coefficient=ppo.entropy_coef, value=critic)


def _distance(parameters: Parameters, batch: Batch, ppo: RouterPPO) -> tuple[float, float]:
    """How far the policy is from the one that drew the rollout (k3), and its entropy, over the whole of it."""
    with torch.no_grad():
        _, metrics = _losses(parameters, batch, torch.arange(len(batch.modes)), ppo)
    return float(metrics["kl_sampler"].mean()), float(metrics["entropy"].mean())
