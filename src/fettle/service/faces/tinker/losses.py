"""The losses of the Tinker API by name: what they read, their settings, and which of ours carries each out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError

from fettle.config import CISPO, DRO, GSPO, PPO, CausalLM, ImportanceSampling, LossConfig
from fettle.errors import ConfigError, did_you_mean

MOST_SETTING = 1e30
Settings = Mapping[str, float]

OURS = ("causal_lm", "value", "dpo", "simpo", "orpo", "kto", "reward_modeling")
"""Losses that the Tinker API does not know, under our names and with our settings and inputs."""

_CLIP = MappingProxyType({"clip_low_threshold": 0.8, "clip_high_threshold": 1.2})
_DRAWN = MappingProxyType({"logprobs": "sampling_logprobs", "advantages": "advantages"})

_LOSS: TypeAdapter[LossConfig] = TypeAdapter(LossConfig)


@dataclass(frozen=True, slots=True)
class Row:
    """One loss."""

    made: Callable[[Settings], LossConfig]
    settings: Settings = field(default_factory=dict)
    """Its settings and their defaults."""
    inputs: Mapping[str, str] = field(default_factory=lambda: _DRAWN)
    """What each datum must bring beside ``target_tokens``, and the stream it becomes."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """What it may bring beside those and ``weights``, which multiply each token's loss."""


def _gspo(clip_low: float, clip_high: float) -> LossConfig:
    return GSPO(level="token", clip_low=clip_low, clip_high=clip_high)


LOSSES: Mapping[str, Row] = MappingProxyType(
    {
        "cross_entropy": Row(lambda _: CausalLM(), inputs={}),
        "importance_sampling": Row(lambda _: ImportanceSampling()),
        "ppo": Row(lambda given: PPO(clip_low=_below(given), clip_high=_above(given)), _CLIP),
        "cispo": Row(
            lambda given: CISPO(ratio_low=given["clip_low_threshold"], ratio_high=given["clip_high_threshold"]),
            {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0},
        ),
        "dro": Row(lambda given: DRO(beta=given["beta"]), {"beta": 0.05}),
        "gspo": Row(
            lambda given: _gspo(_below(given), _above(given)),
            {"clip_low_threshold": 1 - 3e-4, "clip_high_threshold": 1 + 4e-4},
            optional={"sequence_ratio_mask": "sequence_ratio_mask"},
        ),
        # Its formula is not public: REINFORCE with bounded importance weights, and on request a pull to the sampler.
        "stable_reinforce": Row(lambda given: CISPO(proximal_coefficient=given["kl_coeff"]), {"kl_coeff": 0.0}),
    }
)
"""By ``loss_fn``. Clip thresholds are bounds of the ratio itself."""


def row_of(name: str, *, stable_reinforce: bool = True) -> Row | None:
    """The row of a loss; None for one of ours by its own name.

    Raises:
        ConfigError: there is no such loss here.
    """
    if name == "stable_reinforce" and not stable_reinforce:
        raise ConfigError(
            "stable_reinforce is switched off on this server (setting stable_reinforce): name another loss_fn"
        )
    if name in OURS:
        return None
    if name not in LOSSES:
        known = [*LOSSES, *OURS]
        raise ConfigError(f"there is no loss_fn {name!r}{did_you_mean(name, known)}: use {', '.join(known)}")
    return LOSSES[name]


def loss_of(name: str, row: Row | None, given: Mapping[str, float | str]) -> LossConfig:
    """The loss and its settings as the engine knows them.

    Raises:
        ConfigError: a setting is unknown, or cannot be what it is.
    """
    try:
        if row is None:
            return _LOSS.validate_python({"type": name, **given})
        return row.made({**row.settings, **_numbers(name, row, given)})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"loss_fn_config of {name} cannot be: {'; '.join(wrong)}") from error


def _numbers(name: str, row: Row, given: Mapping[str, float | str]) -> dict[str, float]:
    found = {}
    for key, value in given.items():
        if key not in row.settings:
            known = f"it reads {', '.join(row.settings)}" if row.settings else "it has none"
            raise ConfigError(f"loss_fn_config of {name} has {key!r}{did_you_mean(key, row.settings)}: {known}")
        if not isinstance(value, int | float) or not -MOST_SETTING <= value <= MOST_SETTING:
            raise ConfigError(f"loss_fn_config of {name} has {key} {str(value)[:40]!r}: it must be a finite number")
        found[key] = value
    return found


def _below(given: Settings) -> float:
    """How far under 1 the lower bound lies; a ratio is never below 0, so that a bound of 0 is just short of 1."""
    return min(1 - given["clip_low_threshold"], math.nextafter(1, 0))


def _above(given: Settings) -> float:
    return given["clip_high_threshold"] - 1
