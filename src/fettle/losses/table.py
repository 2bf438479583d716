"""Every loss by name: what it speaks of, what it reads, what it reports, and the contracts it signs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from fettle.config import (
    CISPO,
    DPO,
    DRO,
    GSPO,
    KTO,
    ORPO,
    PPO,
    CausalLM,
    Frozen,
    ImportanceSampling,
    RewardModeling,
    SimPO,
    Value,
)
from fettle.losses.policy_gradient import cispo, dro, gspo, importance_sampling, ppo
from fettle.losses.preference import dpo, kto, orpo, simpo
from fettle.losses.reward_model import reward_modeling
from fettle.losses.supervised import causal_lm
from fettle.losses.value import value

Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""To values and detached metrics by name, both of the shape of what it speaks of.

A loss of tokens is ``(logprobs or values [B, T], *, <inputs [B, T]>, <settings>)`` to [B, T]; one of sequences is
``(*, <inputs [B]>, <settings>)`` to [B]; one of pairs the same with [N]. A loss never masks, reduces, divides by counts
or knows ranks.
"""

Unit = Literal["token", "sequence", "pair"]

Contract = Literal["token_local", "zero_advantage", "reinforce_per_token", "reinforce_per_sequence"]
"""What a loss may promise beyond what every loss must.

``token_local``: a token's value depends on that token alone.
``zero_advantage``: no advantage, no gradient.
``reinforce_per_token``: on policy the gradient is REINFORCE's, whatever the advantages and weights.
``reinforce_per_sequence``: so it is where a sequence's tokens share one advantage and one weight.
"""


@dataclass(frozen=True, slots=True)
class LossRow:
    """One loss."""

    function: Loss
    settings: type[Frozen]
    """Its fields other than ``type`` and the terms any policy loss may carry are passed by keyword."""
    inputs: tuple[str, ...]
    """What the function reads by keyword. Of tokens: streams, and masks. Of sequences: ``logprobs``,
    ``reference_logprobs`` (sums over trained tokens), ``lengths``, ``scores`` and scalars. Of pairs: the same as
    ``chosen_*`` and ``rejected_*``, and ``pair_margin``."""
    metrics: tuple[str, ...]
    """Names that the function reports."""
    contracts: frozenset[Contract]
    unit: Unit = "token"
    reads: Literal["logprobs", "values", "scores"] = "logprobs"
    """What the model is asked for."""


_DRAWN = ("sampling_logprobs", "advantages")
_DISTANCES = ("ratio", "kl_sampler")
_CLIPPED = ("clip_fraction", "clip_fraction_low", "clip_fraction_high")
_REINFORCE = frozenset[Contract]({"zero_advantage", "reinforce_per_token", "reinforce_per_sequence", "token_local"})
_NONE = frozenset[Contract]()

_PAIR = ("chosen_logprobs", "rejected_logprobs")
_REFERENCE = ("chosen_reference_logprobs", "rejected_reference_logprobs")
_LENGTHS = ("chosen_lengths", "rejected_lengths")
_PREFERENCE = ("chosen_reward", "rejected_reward", "reward_margin", "preference_accuracy")

LOSSES: Mapping[str, LossRow] = MappingProxyType(
    {
        "causal_lm": LossRow(causal_lm, CausalLM, (), ("nll",), frozenset({"token_local"})),
        "importance_sampling": LossRow(
            importance_sampling,
            ImportanceSampling,
            (*_DRAWN, "loss_mask"),
            (*_DISTANCES, "ratio_max", "ratio_min", "ratio_squared", "clip_fraction"),
            _REINFORCE,
        ),
        "ppo": LossRow(ppo, PPO, _DRAWN, _DISTANCES + _CLIPPED, _REINFORCE),
        "cispo": LossRow(cispo, CISPO, _DRAWN, (*_DISTANCES, "clip_fraction"), _REINFORCE),
        "gspo": LossRow(
            gspo,
            GSPO,
            (*_DRAWN, "sequence_ratio_mask"),
            _DISTANCES + _CLIPPED,
            frozenset({"zero_advantage", "reinforce_per_sequence"}),
        ),
        # Without advantages its penalty still pulls the policy back to the sampler.
        "dro": LossRow(dro, DRO, _DRAWN, _DISTANCES, _REINFORCE - {"zero_advantage"}),
        "value": LossRow(
            value, Value, ("returns", "old_values"), ("value_loss", "value_clip_fraction"), _NONE, reads="values"
        ),
        "dpo": LossRow(
            dpo,
            DPO,
            (*_PAIR, *_REFERENCE, *_LENGTHS, "pair_margin"),
            (*_PREFERENCE, "implicit_reward"),
            _NONE,
            unit="pair",
        ),
        "simpo": LossRow(simpo, SimPO, (*_PAIR, *_LENGTHS), _PREFERENCE, _NONE, unit="pair"),
        "orpo": LossRow(orpo, ORPO, (*_PAIR, *_LENGTHS), (*_PREFERENCE, "nll"), _NONE, unit="pair"),
        "kto": LossRow(
            kto,
            KTO,
            ("logprobs", "reference_logprobs", "preferred", "kl_baseline"),
            ("reward", "reward_margin", "preference_accuracy"),
            _NONE,
            unit="sequence",
        ),
        "reward_modeling": LossRow(
            reward_modeling,
            RewardModeling,
            ("chosen_scores", "rejected_scores", "pair_margin"),
            (
                "preference_accuracy",
                "reward_margin",
                "chosen_reward_mean",
                "rejected_reward_mean",
                "chosen_reward_squared",
                "rejected_reward_squared",
            ),
            _NONE,
            unit="pair",
            reads="scores",
        ),
    }
)
"""By the ``type`` of a loss's settings."""
