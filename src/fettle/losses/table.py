"""Every loss by name: what it reads, what it reports, and the contracts it signs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from fettle.config import CISPO, DRO, GSPO, KL, PPO, CausalLM, Frozen, ImportanceSampling, LossConfig
from fettle.errors import LossInputError
from fettle.losses.kl import KL_ESTIMATORS
from fettle.losses.policy_gradient import cispo, dro, gspo, importance_sampling, ppo
from fettle.losses.supervised import causal_lm
from fettle.types import Datum

Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""``(logprobs, *, <inputs>, <settings>)`` to values [B, T] and detached metrics [B, T] by name.

Logprobs and inputs are [B, T]. A loss never masks, reduces, divides by counts or knows ranks.
"""

Contract = Literal["token_local", "zero_advantage", "reinforce_per_token", "reinforce_per_sequence"]
"""What a loss may promise beyond what every loss must.

``token_local``: a token's value depends on that token alone.
``zero_advantage``: no advantage, no gradient.
``reinforce_per_token``: on policy the gradient is REINFORCE's, whatever the advantages and weights.
``reinforce_per_sequence``: so it is where a sequence's tokens share one advantage and one weight.
"""

ROUNDING = 1e-4
"""How far above 0 rounding may put the logarithm of a probability near 1."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """One loss."""

    function: Loss
    settings: type[Frozen]
    """Its fields other than ``type`` and ``kl`` are passed by keyword."""
    inputs: tuple[str, ...]
    """Streams that the function reads by keyword, each [B, T]; ``loss_mask`` may be one."""
    metrics: tuple[str, ...]
    """Names that the function reports."""
    contracts: frozenset[Contract]


_DRAWN = ("sampling_logprobs", "advantages")
_DISTANCES = ("ratio", "kl_sampler")
_CLIPPED = ("clip_fraction", "clip_fraction_low", "clip_fraction_high")
_REINFORCE = frozenset[Contract]({"zero_advantage", "reinforce_per_token", "reinforce_per_sequence", "token_local"})

LOSSES: Mapping[str, LossRow] = MappingProxyType(
    {
        "causal_lm": LossRow(causal_lm, CausalLM, (), ("nll",), frozenset({"token_local"})),
        "importance_sampling": LossRow(importance_sampling, ImportanceSampling, _DRAWN, _DISTANCES, _REINFORCE),
        "ppo": LossRow(ppo, PPO, _DRAWN, _DISTANCES + _CLIPPED, _REINFORCE),
        "cispo": LossRow(cispo, CISPO, _DRAWN, (*_DISTANCES, "clip_fraction"), _REINFORCE),
        "gspo": LossRow(
            gspo,
            GSPO,
            (*_DRAWN, "loss_mask"),
            _DISTANCES + _CLIPPED,
            frozenset({"zero_advantage", "reinforce_per_sequence"}),
        ),
        # Without advantages its penalty still pulls the policy back to the sampler.
        "dro": LossRow(dro, DRO, _DRAWN, _DISTANCES, _REINFORCE - {"zero_advantage"}),
    }
)
"""By the ``type`` of a loss's settings."""


def required_inputs(config: LossConfig) -> tuple[str, ...]:
    """The streams that a datum must carry, besides ``loss_mask``, which it always has."""
    own = tuple(name for name in LOSSES[config.type].inputs if name != "loss_mask")
    return own if _penalty(config) is None else (*own, "reference_logprobs")


def check_inputs(config: LossConfig, data: Sequence[Datum]) -> None:
    """Refuse data that ``config`` cannot be evaluated on.

    Raises:
        LossInputError: a datum lacks a stream, or a trained token's log-probability is above 0.
    """
    if not data:
        raise LossInputError(f"there is no data to evaluate the loss {config.type} on: give at least one datum")
    required = required_inputs(config)
    for index, datum in enumerate(data):
        for name in required:
            if name not in datum.streams:
                held = ", ".join(sorted(datum.streams)) or "no streams"
                raise LossInputError(f"datum {index} has no {name}, which the loss {config.type} reads: it has {held}")
            if name.endswith("_logprobs"):
                _check_logprobs(index, name, datum)


def evaluate(config: LossConfig, logprobs: Tensor, inputs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of each token and its metrics, all [B, T]; what stands at masked tokens changes nothing.

    ``inputs`` holds ``loss_mask`` and the required streams. Where ``config.kl`` belongs in the loss,
    ``coefficient * KL`` is added and reported, before the coefficient, as ``kl_<estimator>``.

    Raises:
        LossInputError: an input's shape is not that of ``logprobs``.
    """
    row = LOSSES[config.type]
    trained = inputs["loss_mask"] > 0
    streams = {name: inputs[name] for name in (*required_inputs(config), "loss_mask")}
    for name, values in streams.items():
        if values.shape != logprobs.shape:
            raise LossInputError(
                f"{name} has shape {list(values.shape)} beside log-probabilities of shape {list(logprobs.shape)}: "
                "one value a token is needed"
            )
    # Zeros at masked tokens, before anything is exponentiated: 0 * inf there would be NaN in the sum and its gradient.
    streams = {name: torch.where(trained, values, 0) for name, values in streams.items()}
    logprobs = torch.where(trained, logprobs, 0)
    settings = {name: value for name, value in config if name not in {"type", "kl"}}
    values, metrics = row.function(logprobs, **{name: streams[name] for name in row.inputs}, **settings)
    penalty = _penalty(config)
    if penalty is None:
        return values, metrics
    divergence = KL_ESTIMATORS[penalty.estimator](logprobs, streams["reference_logprobs"])
    return values + penalty.coefficient * divergence, metrics | {f"kl_{penalty.estimator}": divergence.detach()}


def _penalty(config: LossConfig) -> KL | None:
    """The KL penalty, where it belongs in the loss."""
    if isinstance(config, CausalLM) or config.kl is None or config.kl.place != "loss":
        return None
    return config.kl


def _check_logprobs(index: int, name: str, datum: Datum) -> None:
    values = datum.streams[name]
    above = (datum.loss_mask > 0) & (values > ROUNDING)
    if above.any():
        at = int(above.argmax())
        raise LossInputError(
            f"datum {index}: {name}[{at}] is {values[at]:.6g}, and a log-probability is never above 0: "
            "check that these are logarithms, and of these tokens"
        )
