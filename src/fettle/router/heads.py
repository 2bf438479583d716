"""The policy and its critic: a few tensors, and what they say of observations.

Axes: B observations, D features, H hidden units, M modes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fettle.config.router import HeadsConfig, MLPHeads
from fettle.router.modes import MODES
from fettle.router.nouns import Doubles

Parameters = dict[str, Tensor]
"""``policy_w`` [D or H, M], ``policy_b`` [M], ``value_w`` [D or H], ``value_b`` [1]; with hidden layers also
``policy_hidden_w`` and ``value_hidden_w`` [D, H], ``policy_hidden_b`` and ``value_hidden_b`` [H]."""

FIRST_LOGITS = 0.01
"""How large the weights of the logits are at first: all modes are then about as likely."""
KEPT = 0.9
"""How much of what was known of the scale of returns is kept at an update."""
LEAST_VARIANCE = 1e-6


def initial(config: HeadsConfig, features: int, rng: np.random.Generator) -> Parameters:
    """Heads that know nothing: about uniform over the modes, every value 0."""
    drawn: dict[str, Doubles] = {}
    width = features
    if isinstance(config, MLPHeads):
        width = config.hidden
        for head in ("policy", "value"):
            drawn[f"{head}_hidden_w"] = rng.normal(0, 1 / math.sqrt(features), (features, width))
            drawn[f"{head}_hidden_b"] = np.zeros(width)
    drawn["policy_w"] = rng.normal(0, FIRST_LOGITS, (width, len(MODES)))
    drawn |= {"policy_b": np.zeros(len(MODES)), "value_w": np.zeros(width), "value_b": np.zeros(1)}
    return {name: torch.tensor(values, dtype=torch.float32, requires_grad=True) for name, values in drawn.items()}


def logits(parameters: Parameters, observations: Tensor) -> Tensor:
    """Of every mode [B, M]."""
    return _hidden(parameters, "policy", observations) @ parameters["policy_w"] + parameters["policy_b"]


def values(parameters: Parameters, observations: Tensor) -> Tensor:
    """What the critic expects from here on [B], on the scale that it learns on."""
    return _hidden(parameters, "value", observations) @ parameters["value_w"] + parameters["value_b"]


def _hidden(parameters: Parameters, head: str, observations: Tensor) -> Tensor:
    if f"{head}_hidden_w" not in parameters:
        return observations
    return torch.tanh(observations @ parameters[f"{head}_hidden_w"] + parameters[f"{head}_hidden_b"])


@dataclass(frozen=True, slots=True)
class Scale:
    """Where returns lie: running sums of their mean and square, and of the weight of both."""

    total: float = 0.0
    squares: float = 0.0
    weight: float = 0.0

    @property
    def mean(self) -> float:
        """Of the returns so far; 0 before there are any."""
        return self.total / self.weight if self.weight else 0.0

    @property
    def deviation(self) -> float:
        """Of the returns so far; 1 before there are any."""
        if not self.weight:
            return 1.0
        return math.sqrt(max(self.squares / self.weight - self.mean**2, LEAST_VARIANCE))

    def after(self, returns: Doubles) -> "Scale":
        """With more returns, older ones counting less and less."""
        fresh = 1 - KEPT
        return Scale(
            KEPT * self.total + fresh * float(returns.mean()),
            KEPT * self.squares + fresh * float(np.square(returns).mean()),
            KEPT * self.weight + fresh,
        )


def rescale(parameters: Parameters, before: Scale, after: Scale) -> None:
    """Change the critic's last layer so that it says what it said, on another scale (arXiv:1602.07714, section 2.1)."""
    with torch.no_grad():
        parameters["value_w"] *= before.deviation / after.deviation
        bias = parameters["value_b"]
        bias.copy_((bias * before.deviation + before.mean - after.mean) / after.deviation)


def unscaled(parameters: Parameters, scale: Scale) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """The tensors as arrays, with a critic that speaks of returns as they are."""
    copied = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    rescale(copied, scale, Scale(total=0.0, squares=1.0, weight=1.0))
    return {name: tensor.numpy() for name, tensor in copied.items()}
