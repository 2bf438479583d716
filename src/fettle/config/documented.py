"""The settings of losses by the names and with the defaults that a training service documents for them.

``fettle.losses.documented`` makes core losses of them. Where a documented default does harm it stays, and says so.
"""

import functools
import inspect
import os
import warnings
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field, model_validator

from fettle.config.base import Frozen

Epsilon = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]

INSIDE = (f"{Path(__file__).parents[1]}{os.sep}", f"{Path(pydantic.__file__).parent}{os.sep}")
"""Whose lines a warning does not name: this package's, and of the library that checks settings."""


class CausalLM(Frozen):
    """Negative log-likelihood of the trained tokens."""


class Referenced(Frozen):
    """What is held near a reference."""

    reference_model: str | None = None
    """A folder or a hub name; null is the model that the policy started from."""


class PPO(Referenced):
    """The clipped surrogate with no critic: rewards are measured against the batch's mean."""

    clip_epsilon: Epsilon = 0.2
    """ε: ratios beyond 1 ± ε earn no more credit."""
    entropy_coef: Weight = 0.01
    """What the entropy is multiplied by before it is taken off the loss."""
    beta: Weight = 0.01
    """What the divergence from the reference is multiplied by."""


class EnhancedPPO(PPO):
    """The clipped surrogate with a critic, generalised advantage estimation and an entropy bonus."""

    use_gae: bool = True
    """Measure rewards against the critic; otherwise against ``values`` of the batch, or else against its mean."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.99
    """γ, the discount a token."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """λ: 1 is the return itself, 0 one token ahead."""
    value_loss_coef: Weight = 0.5
    """What the critic's loss is multiplied by; 0 leaves the critic alone."""
    clip_value_loss: bool = True
    """Hold the critic within ``clip_epsilon`` of its old values."""

    @model_validator(mode="after")
    def _says_what_discounts_do(self) -> "EnhancedPPO":
        if self.gamma < 1:
            warn_of_discount(self.gamma)
        return self


class DPO(Referenced):
    """Direct preference optimisation."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull to the reference: larger stays nearer."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs taken to be labelled the wrong way round; below 0.5."""


class GRPO(Referenced):
    """The clipped surrogate on advantages that compare the responses to one prompt."""

    beta: Weight = 0.01
    """What the divergence from the reference is multiplied by."""
    clip_epsilon: Epsilon = 0.2
    """ε: ratios beyond 1 ± ε earn no more credit."""


class ImportanceSampling(Referenced):
    """REINFORCE on what another policy drew, weighted by the ratio of the two."""

    beta: Weight = 0.1
    """What the divergence from the reference is multiplied by."""
    clip_ratio: Annotated[float, Field(gt=0)] = 10.0
    """Greatest weight."""


class ConservativePPO(Referenced):
    """The clipped surrogate with a quadratic penalty on a divergence beyond a threshold."""

    conservative_coef: Weight = 0.1
    """What the squared excess is multiplied by."""
    max_kl_divergence: Weight = 0.01
    """Divergence from the reference, in nats a token, up to which there is no penalty."""
    clip_epsilon: Epsilon = 0.2
    """ε: ratios beyond 1 ± ε earn no more credit."""


class RewardModeling(Frozen):
    """Bradley-Terry on the scores of a reward head: ``-log σ((r_w - r_l) / temperature - margin)``."""

    margin: Weight = 1.0
    """By how much the chosen is to win, on the logit: after the temperature has divided."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """What the difference of scores is divided by."""

    @model_validator(mode="after")
    def _says_what_temperature_does(self) -> "RewardModeling":
        if self.temperature < 1:
            _warn_once(
                f"reward_modeling divides scores by a temperature of {self.temperature:g}, which multiplies gradients "
                f"by {1 / self.temperature:g} and saturates early: use temperature 1.0 and margin 0.0"
            )
        return self


def warn_of_discount(gamma: float) -> None:
    """Say, once, what a discount below 1 does to tokens."""
    _warn_once(
        f"gamma {gamma:g} discounts each token, and leaves {100 * gamma**500:.2g} % of a reward that 500 tokens earned "
        "at their beginning: use gamma 1.0 over tokens, and discounts for the steps of an environment"
    )


@functools.cache
def _warn_once(message: str) -> None:
    """Whatever the process's filters are, it is told once in a process."""
    warnings.warn(message, UserWarning, stacklevel=_level_outside())


def _level_outside() -> int:
    """The ``stacklevel``, for the function that asks, of the line that called into this package."""
    frames = enumerate(inspect.stack(0))
    return next((level for level, frame in frames if not frame.filename.startswith(INSIDE)), 1)
