"""Losses by the names that a training service documents for them: rows that become core losses of ``LOSSES``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from fettle.broker import lowered, told
from fettle.broker.lowered import POLICY_LOGPROBS, Lowered
from fettle.config import Frozen, documented
from fettle.data import FORMATS
from fettle.errors import ConfigError, did_you_mean
from fettle.types import Datum, ForwardResult


@dataclass(frozen=True, slots=True)
class DocumentedLoss:
    """One documented name."""

    settings: type[Frozen]
    batch: Callable[[Mapping[str, object]], list[Datum]]
    """Reads the documented batch format."""
    reads: Callable[[Any], tuple[str, ...]]
    """Streams that its settings need and that are read from a model where the batch has none: ``old_values``,
    ``reference_logprobs``, ``sampling_logprobs``, ``policy_logprobs``."""
    prepare: Callable[[Any, Sequence[Datum]], Lowered]
    """The core loss, and the batch as that reads it."""
    told: Callable[[Any, Lowered, ForwardResult], tuple[float, dict[str, float]]]
    """The loss and the documented metrics."""
    metrics: tuple[str, ...]
    """Names that are told, whatever the batch, with the documented defaults."""


def settings_of(name: str, given: Mapping[str, object]) -> Frozen:
    """The settings of the documented loss ``name`` with what is ``given`` laid over its defaults.

    Raises:
        ConfigError: there is no such loss or setting, or a setting cannot be what it is.
    """
    row = row_of(name)
    known = row.settings.model_fields
    for key in given:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ConfigError(f"the loss {name} has no setting {key!r}: {takes}{did_you_mean(key, known)}")
    try:
        return row.settings.model_validate(dict(given))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))} ({e['msg']}, got {e['input']!r})" for e in error.errors()]
        raise ConfigError(f"the loss {name} cannot be used with {'; '.join(wrong)}") from error


def row_of(name: str) -> DocumentedLoss:
    """The row of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in DOCUMENTED:
        raise ConfigError(f"no loss is named {name!r}: use {', '.join(DOCUMENTED)}{did_you_mean(name, DOCUMENTED)}")
    return DOCUMENTED[name]


def _with_values(batch: Mapping[str, object]) -> list[Datum]:
    """Rewards are measured against ``values``, and clips are around ``old_values``; one stands for both if alone."""
    return [_both_values(datum) for datum in FORMATS["enhanced_ppo"](batch)]


def _both_values(datum: Datum) -> Datum:
    given = [name for name in ("values", "old_values") if name in datum.streams]
    if len(given) != 1:
        return datum
    both = dict.fromkeys(("values", "old_values"), datum.streams[given[0]])
    return replace(datum, streams={**datum.streams, **both})


def _always(*streams: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda settings: streams


def _with_critic(settings: documented.EnhancedPPO) -> tuple[str, ...]:
    return ("old_values", "reference_logprobs") if settings.use_gae else ("reference_logprobs",)


_CLIPPED = ("policy_loss", "entropy", "kl_divergence", "approx_kl", "clip_fraction")
_ADVANTAGE = ("advantage_mean", "advantage_std", "reward_mean")
_PPO = (*_CLIPPED, *_ADVANTAGE, "explained_variance", "value_mean", "return_mean")
_PREFERENCE = ("reward_margin", "preference_accuracy")

DOCUMENTED: Mapping[str, DocumentedLoss] = MappingProxyType(
    {
        "causal_lm": DocumentedLoss(
            documented.CausalLM,
            FORMATS["causal_lm"],
            _always(),
            lowered.causal_lm,
            told.plainly,
            ("nll", "entropy"),
        ),
        "ppo": DocumentedLoss(
            documented.PPO,
            _with_values,
            _always("reference_logprobs"),
            lowered.ppo,
            told.of_ppo,
            _PPO,
        ),
        "enhanced_ppo": DocumentedLoss(
            documented.EnhancedPPO,
            _with_values,
            _with_critic,
            lowered.enhanced_ppo,
            told.of_ppo,
            (*_PPO, "value_loss"),
        ),
        "conservative_ppo": DocumentedLoss(
            documented.ConservativePPO,
            _with_values,
            _always("reference_logprobs", POLICY_LOGPROBS),
            lowered.conservative_ppo,
            told.of_conservative_ppo,
            (*_PPO, "kl_violation", "kl_penalty", "max_kl_threshold"),
        ),
        "grpo": DocumentedLoss(
            documented.GRPO,
            FORMATS["grpo"],
            _always("reference_logprobs", "sampling_logprobs"),
            lowered.grpo,
            told.of_ppo,
            (*_CLIPPED, *_ADVANTAGE, "zero_variance_groups"),
        ),
        "importance_sampling": DocumentedLoss(
            documented.ImportanceSampling,
            FORMATS["importance_sampling"],
            _always("reference_logprobs"),
            lowered.importance_sampling,
            told.of_importance_sampling,
            (
                *("is_ratio_mean", "is_ratio_max", "is_ratio_min", "clipped_fraction", "effective_sample_size"),
                *("policy_loss", "entropy", "kl_divergence", *_ADVANTAGE),
            ),
        ),
        "dpo": DocumentedLoss(
            documented.DPO,
            FORMATS["dpo"],
            _always("reference_logprobs"),
            lowered.dpo,
            told.plainly,
            ("implicit_reward", "chosen_reward", "rejected_reward", *_PREFERENCE),
        ),
        "reward_modeling": DocumentedLoss(
            documented.RewardModeling,
            FORMATS["reward_modeling"],
            _always(),
            lowered.reward_modeling,
            told.plainly,
            (
                *("chosen_reward_mean", "rejected_reward_mean", "chosen_reward_std", "rejected_reward_std"),
                *_PREFERENCE,
            ),
        ),
    }
)
"""By documented name."""
