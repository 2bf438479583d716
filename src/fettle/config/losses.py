"""The settings of every loss. ``LOSSES`` in ``fettle.losses`` has one row for each ``type`` here."""

import warnings
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen


class KL(Frozen):
    """A penalty that holds the policy near a reference."""

    coefficient: Annotated[float, Field(gt=0)] = 0.01
    """What the divergence is multiplied by."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """k1 = log π/ρ, k2 = its square halved, k3 = ρ/π - 1 - log ρ/π (Schulman, 2020). ``k1`` belongs in the
    reward, ``k2`` and ``k3`` in the loss: elsewhere their gradient is not that of a divergence."""
    place: Literal["loss", "reward"] = "loss"
    """``reward`` takes the penalty off the reward before credit is given; ``loss`` adds it to the loss."""

    @model_validator(mode="after")
    def _gradient_is_of_a_divergence(self) -> "KL":
        if self.place == "loss" and self.estimator == "k1":
            reason = "has no expected gradient on policy, and so holds nothing: use k2 or k3, or place: reward"
            warnings.warn(f"the KL estimator k1 in the loss {reason}", UserWarning, stacklevel=2)
        if self.place == "reward" and self.estimator != "k1":
            reason = "has an expected gradient that is not that of the divergence: use k1, or place: loss"
            warnings.warn(f"the KL estimator {self.estimator} in the reward {reason}", UserWarning, stacklevel=2)
        return self


class CausalLM(Frozen):
    """Negative log-likelihood of the trained tokens."""

    type: Literal["causal_lm"] = "causal_lm"


class ImportanceSampling(Frozen):
    """REINFORCE with the ratio of the policy to the sampler; on policy, exactly REINFORCE."""

    type: Literal["importance_sampling"] = "importance_sampling"
    kl: KL | None = None
    """Penalty towards a reference; absent means none."""


class PPO(Frozen):
    """The clipped surrogate, with separate bounds below and above."""

    type: Literal["ppo"] = "ppo"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """ε below: ratios under 1 - ε earn no more credit."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """ε above: ratios over 1 + ε earn no more credit."""
    kl: KL | None = None
    """Penalty towards a reference; absent means none."""


class CISPO(Frozen):
    """Log-probabilities weighted by a clipped ratio that takes no gradient: clipped tokens still teach."""

    type: Literal["cispo"] = "cispo"
    ratio_low: Annotated[float, Field(ge=0)] = 0.0
    """Least weight of a token."""
    ratio_high: Annotated[float, Field(gt=0)] = 4.0
    """Greatest weight of a token."""
    kl: KL | None = None
    """Penalty towards a reference; absent means none."""


class GSPO(Frozen):
    """The clipped surrogate with one ratio a sequence, its length-normalised likelihood ratio."""

    type: Literal["gspo"] = "gspo"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """ε below, on the sequence's ratio."""
    clip_high: Annotated[float, Field(gt=0)] = 4e-4
    """ε above, on the sequence's ratio."""
    kl: KL | None = None
    """Penalty towards a reference; absent means none."""


class DRO(Frozen):
    """A quadratic penalty on the log-ratio instead of a clip."""

    type: Literal["dro"] = "dro"
    beta: Annotated[float, Field(gt=0)] = 0.05
    """Strength of the penalty: larger stays nearer to the sampler."""
    kl: KL | None = None
    """Penalty towards a reference; absent means none."""


PolicyLossConfig = Annotated[ImportanceSampling | PPO | CISPO | GSPO | DRO, Field(discriminator="type")]
"""A loss that reinforcement learning may use."""

LossConfig = Annotated[CausalLM | ImportanceSampling | PPO | CISPO | GSPO | DRO, Field(discriminator="type")]
"""Any loss that an engine can be asked for."""
