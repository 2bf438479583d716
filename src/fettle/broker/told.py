"""What is told of a documented loss, under the names that are documented for it: settings, batch and result in."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.broker.lowered import Lowered, divergence, of_sequences
from fettle.config import Frozen, documented
from fettle.losses import LOSSES
from fettle.losses.evaluation import TERMS
from fettle.losses.kl import LOG_RATIO_LIMIT
from fettle.types import Floats, ForwardResult

Told = tuple[float, dict[str, float]]
"""The loss, and metrics by their documented names."""


def plainly(settings: Frozen, lowered: Lowered, result: ForwardResult) -> Told:
    """The engine's own names are the documented ones."""
    return result.loss, {**lowered.metrics, **result.metrics}


def of_ppo(settings: Frozen, lowered: Lowered, result: ForwardResult) -> Told:
    """The clipped surrogate apart from its terms, and what is told of clips, entropy, divergences and a critic."""
    found = result.metrics
    metrics = {
        "policy_loss": _surrogate(lowered, result),
        "entropy": found["entropy"],
        "kl_divergence": divergence(lowered.data, result.logprobs),
        "approx_kl": found["kl_sampler"],
        "clip_fraction": found["clip_fraction"],
    }
    critic = {"value_loss": found["value_loss"]} if "value_loss" in found else {}
    return result.loss, {**lowered.metrics, **metrics, **critic}


def of_conservative_ppo(settings: Frozen, lowered: Lowered, result: ForwardResult) -> Told:
    """As PPO; the loss holds the penalty itself, of which the engine was given the slope."""
    _, metrics = of_ppo(settings, lowered, result)
    return metrics["policy_loss"] + metrics["kl_penalty"], metrics


def of_importance_sampling(settings: documented.ImportanceSampling, lowered: Lowered, result: ForwardResult) -> Told:
    """Of the ratios, one a sequence or a token as the loss has them, before they are cut."""
    ratios = _ratios(lowered, result)
    metrics = {
        "policy_loss": _surrogate(lowered, result),
        "is_ratio_mean": float(ratios.mean()),
        "is_ratio_max": float(ratios.max()),
        "is_ratio_min": float(ratios.min()),
        "clipped_fraction": float((ratios > settings.clip_ratio).mean()),
        "effective_sample_size": float(ratios.mean() ** 2 / np.square(ratios).mean()),
        "entropy": result.metrics["entropy"],
        "kl_divergence": divergence(lowered.data, result.logprobs),
    }
    return result.loss, {**lowered.metrics, **metrics}


def _surrogate(lowered: Lowered, result: ForwardResult) -> float:
    """The policy's part of the loss, on the log-probabilities that the engine returned."""
    row = LOSSES[lowered.loss.type]
    settings = {name: value for name, value in lowered.loss if name not in TERMS}
    total = 0.0
    for datum, logprobs in zip(lowered.data, result.logprobs, strict=True):
        known = {**datum.streams, "loss_mask": datum.loss_mask}
        inputs = {name: _row(known[name] * datum.loss_mask) for name in row.inputs}
        values, _ = row.function(_row(logprobs), **inputs, **settings)
        total += float(values[0].double() @ torch.from_numpy(datum.weights).double())
    return total


def _ratios(lowered: Lowered, result: ForwardResult) -> NDArray[np.float64]:
    log_ratios = [
        (logprobs - datum.streams["sampling_logprobs"])[datum.loss_mask > 0].astype(np.float64)
        for datum, logprobs in zip(lowered.data, result.logprobs, strict=True)
    ]
    if of_sequences(lowered.data):
        log_ratios = [of_tokens.sum(keepdims=True) for of_tokens in log_ratios]
    ratios: NDArray[np.float64] = np.exp(np.minimum(np.concatenate(log_ratios), LOG_RATIO_LIMIT))
    return ratios


def _row(values: Floats) -> Tensor:
    return torch.from_numpy(values)[None]
