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


class Value(Frozen):
    """Regression of a critic on returns: beside a policy's loss where they share weights, or a loss of its own."""

    type: Literal["value"] = "value"
    coefficient: Annotated[float, Field(gt=0)] = 0.5
    """What the value loss is multiplied by."""
    clip: Annotated[float, Field(gt=0)] | None = 0.2
    """Values that moved further than this from the old ones are held to the worse of the two; null never holds."""


class PolicyLoss(Frozen):
    """What any policy-gradient loss may carry."""

    kl: KL | None = None
    """Penalty towards a reference; absent means none."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """What the entropy of the whole softmax is multiplied by before it is taken off the loss."""
    value: Value | None = None
    """Loss of a value head on the policy; absent means none."""
    proximal_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """What KL(μ‖π), the divergence from the sampler, is multiplied by before it is added to the loss."""


class ImportanceSampling(PolicyLoss):
    """REINFORCE with the ratio of the policy to the sampler; on policy, exactly REINFORCE."""

    type: Literal["importance_sampling"] = "importance_sampling"
    level: Literal["token", "sequence"] = "token"
    """Whose ratio: the token's own, or that of its whole sequence."""
    form: Literal["truncated", "cispo"] = "truncated"
    """``truncated`` takes the ratio's gradient, and none above the cap; ``cispo`` weights log-probabilities by it."""
    clip_ratio: Annotated[float, Field(gt=0)] | None = None
    """Greatest ratio; null is no cap."""


class PPO(PolicyLoss):
    """The clipped surrogate, with separate bounds below and above."""

    type: Literal["ppo"] = "ppo"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """ε below: ratios under 1 - ε earn no more credit."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """ε above: ratios over 1 + ε earn no more credit."""


class CISPO(PolicyLoss):
    """Log-probabilities weighted by a clipped ratio that takes no gradient: clipped tokens still teach."""

    type: Literal["cispo"] = "cispo"
    ratio_low: Annotated[float, Field(ge=0)] = 0.0
    """Least weight of a token."""
    ratio_high: Annotated[float, Field(gt=0)] = 4.0
    """Greatest weight of a token."""

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> "CISPO":
        if self.ratio_low > self.ratio_high:
            raise ValueError(f"ratio_low is {self.ratio_low:g} and ratio_high {self.ratio_high:g}: lower ratio_low")
        return self


class GSPO(PolicyLoss):
    """The clipped surrogate with one ratio a sequence, its length-normalised likelihood ratio."""

    type: Literal["gspo"] = "gspo"
    level: Literal["sequence", "token"] = "sequence"
    """Whose gradient a token's value has: the whole sequence's, or its own, so that advantages may differ by token."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """ε below, on the sequence's ratio."""
    clip_high: Annotated[float, Field(gt=0)] = 4e-4
    """ε above, on the sequence's ratio."""


class DRO(PolicyLoss):
    """A quadratic penalty on the log-ratio instead of a clip."""

    type: Literal["dro"] = "dro"
    beta: Annotated[float, Field(gt=0)] = 0.05
    """Strength of the penalty: larger stays nearer to the sampler."""


class DPO(Frozen):
    """Direct preference optimisation, and its kin that differ in one formula."""

    type: Literal["dpo"] = "dpo"
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull to the reference: larger stays nearer."""
    variant: Literal["sigmoid", "robust", "ipo", "hinge"] = "sigmoid"
    """What the difference of implicit rewards goes into."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs taken to be labelled the wrong way round (conservative and robust DPO); below 0.5."""
    reference_free: bool = False
    """Leave the reference out: another objective, in which the reference is uniform."""
    length_normalized: bool = False
    """Compare log-probabilities per token rather than of whole responses."""
    margin: float = 0.0
    """By how much the chosen's implicit reward is to exceed the rejected's."""

    @model_validator(mode="after")
    def _smoothing_has_a_sigmoid(self) -> "DPO":
        if self.label_smoothing and self.variant in ("ipo", "hinge"):
            raise ValueError(f"label_smoothing is of no use to the variant {self.variant}: use sigmoid or robust")
        return self


class SimPO(Frozen):
    """Length-normalised preference optimisation with a margin and no reference."""

    type: Literal["simpo"] = "simpo"
    beta: Annotated[float, Field(gt=0)] = 2.0
    """What the difference of mean log-probabilities is multiplied by."""
    target_margin: Annotated[float, Field(ge=0)] = 1.0
    """γ: by how much the chosen's reward is to exceed the rejected's."""


class ORPO(Frozen):
    """Supervised fine-tuning on the chosen with an odds-ratio penalty on the rejected; no reference."""

    type: Literal["orpo"] = "orpo"
    beta: Annotated[float, Field(gt=0)] = 0.1
    """λ: weight of the odds ratio beside the log-likelihood."""


class KTO(Frozen):
    """Learning from replies that are simply good or bad, with no pairs."""

    type: Literal["kto"] = "kto"
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull to the reference: larger stays nearer."""
    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of good replies."""
    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of bad replies."""


class RewardModeling(Frozen):
    """Bradley-Terry: the probability that the chosen beats the rejected is a sigmoid of their scores' difference."""

    type: Literal["reward_modeling"] = "reward_modeling"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """What the difference of scores is divided by."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """By how much the chosen's score is to exceed the rejected's."""
    margin_place: Literal["reward", "logit"] = "reward"
    """``reward`` takes the margin off before the temperature divides, ``logit`` after."""
    centering: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared sum of a pair's scores, which holds them around 0."""


class Reading(Frozen):
    """No loss: a forward pass that only reads what the model says."""

    type: Literal["reading"] = "reading"
    of: Literal["logprobs", "values", "scores"]
    """What is read."""


PolicyLossConfig = Annotated[ImportanceSampling | PPO | CISPO | GSPO | DRO, Field(discriminator="type")]
"""A loss that reinforcement learning may use."""

PreferenceLossConfig = Annotated[DPO | SimPO | ORPO | KTO, Field(discriminator="type")]
"""A loss that learns from what people prefer."""

LossConfig = Annotated[
    CausalLM
    | ImportanceSampling
    | PPO
    | CISPO
    | GSPO
    | DRO
    | Value
    | DPO
    | SimPO
    | ORPO
    | KTO
    | RewardModeling
    | Reading,
    Field(discriminator="type"),
]
"""Any loss that an engine can be asked for."""
