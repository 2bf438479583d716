"""A loss on what a model said: inputs checked and masked, sequences summed, pairs set side by side, terms added."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fettle.config import DPO, KL, LossConfig, PolicyLoss, Reading, Value
from fettle.errors import LossInputError
from fettle.losses.kl import KL_ESTIMATORS, k3
from fettle.losses.table import LOSSES, Unit
from fettle.losses.value import value
from fettle.types import LOGPROB_ROUNDING, Datum

TERMS = frozenset({"type", "kl", "entropy_coefficient", "value", "proximal_coefficient", "coefficient"})
"""Settings that are applied here, and that a loss's function does not see."""

MASKS = frozenset({"sequence_ratio_mask"})
"""Inputs that are ``loss_mask`` where a datum has none of its own."""

MADE_HERE = MASKS | {"loss_mask", "logprobs", "lengths", "scores", "pair_margin"}
"""Inputs that no datum has to carry."""

SCALARS = frozenset({"preferred", "kl_baseline"})
"""Inputs that are one number a sequence."""


def unit_of(config: LossConfig) -> Unit:
    """What the loss speaks of: each trained token, each sequence or each pair."""
    return "token" if isinstance(config, Reading) else LOSSES[config.type].unit


def model_outputs(config: LossConfig) -> frozenset[str]:
    """What the model must be asked for: ``logprobs``, ``values``, ``scores``."""
    if isinstance(config, Reading):
        return frozenset({config.of})
    of_terms = {"values"} if isinstance(config, PolicyLoss) and config.value is not None else set()
    return frozenset({LOSSES[config.type].reads, *of_terms})


def required_inputs(config: LossConfig) -> tuple[str, ...]:
    """The streams that a datum must carry, besides ``loss_mask``, which it always has."""
    if isinstance(config, Reading):
        return ()
    own = [name for name in map(_base, LOSSES[config.type].inputs) if name not in MADE_HERE | SCALARS]
    if isinstance(config, DPO) and config.reference_free:
        own = []
    if _penalty(config) is not None:
        own.append("reference_logprobs")
    if isinstance(config, PolicyLoss) and config.value is not None:
        own += ["returns", "old_values"]
    return tuple(dict.fromkeys(own))


def masks(config: LossConfig) -> tuple[str, ...]:
    """The streams that stand in the place of ``loss_mask`` for a datum that carries them."""
    return () if isinstance(config, Reading) else tuple(name for name in LOSSES[config.type].inputs if name in MASKS)


def required_scalars(config: LossConfig) -> tuple[str, ...]:
    """The scalars that a datum must carry."""
    if isinstance(config, Reading):
        return ()
    row = LOSSES[config.type]
    own = [name for name in row.inputs if name in SCALARS]
    return tuple(dict.fromkeys([*own, *(["preferred"] if row.unit == "pair" else [])]))


def check_inputs(config: LossConfig, data: Sequence[Datum]) -> None:
    """Refuse data that ``config`` cannot be evaluated on.

    Raises:
        LossInputError: a datum lacks a stream, a scalar or a partner, or a trained token's log-probability is above 0;
            a reply is empty; or the two of a pair do not ask the same of it.
    """
    if not data:
        raise LossInputError(f"there is no data to evaluate the loss {config.type} on: give at least one datum")
    for index, datum in enumerate(data):
        _check_held(config, index, "streams", required_inputs(config), datum.streams)
        _check_held(config, index, "scalars", required_scalars(config), datum.scalars)
        for name in required_inputs(config):
            if name.endswith("_logprobs"):
                _check_logprobs(index, name, datum)
        _check_reply(config, index, datum)
    if unit_of(config) == "pair":
        for chosen, rejected in pairs(data):
            _check_agreed(data, chosen, rejected)


def pairs(data: Sequence[Datum]) -> list[tuple[int, int]]:
    """Where the chosen and the rejected of each pair stand.

    Raises:
        LossInputError: a group is not one chosen and one rejected.
    """
    by_group: dict[str, dict[bool, int]] = {}
    for index, datum in enumerate(data):
        preferred = datum.scalars.get("preferred", 0.0) > 0.5
        members = by_group.setdefault(datum.group, {})
        if preferred in members:
            which = "chosen" if preferred else "rejected"
            raise LossInputError(
                f"data {members[preferred]} and {index} of group {datum.group!r} are both the {which}: a pair is two "
                "data of one group, one with preferred 1 and one with 0"
            )
        members[preferred] = index
    for group, members in by_group.items():
        if len(members) < 2:
            (index,) = members.values()
            raise LossInputError(
                f"datum {index} of group {group!r} has no partner: a pair is two data of one group, one with "
                "preferred 1 and one with 0"
            )
    return [(members[True], members[False]) for members in by_group.values()]


def evaluate(
    config: LossConfig, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of each token [B, T], sequence [B] or pair [N], and its metrics; what is masked changes nothing.

    Args:
        outputs: what the model said: ``logprobs``, ``entropy`` and ``values`` [B, T], ``scores`` [B].
        inputs: ``loss_mask`` and the required streams [B, T], the required scalars [B]. Of pairs, the rows are chosen
            and rejected in turn.

    Raises:
        LossInputError: an input's shape is not that of the log-probabilities.
    """
    row = LOSSES[config.type]
    trained = inputs["loss_mask"] > 0
    _check_shapes(config, trained, outputs, inputs)
    # Zeros at masked tokens, before anything is exponentiated: 0 * inf there would be NaN in the sum and its gradient.
    given = {name: inputs.get(name, inputs["loss_mask"]) for name in masks(config)}
    given |= {name: inputs[name] for name in (*required_inputs(config), "loss_mask")}
    streams = {name: torch.where(trained, values, 0) for name, values in given.items()}
    said = {name: x if name == "scores" else torch.where(trained, x, 0) for name, x in outputs.items()}
    settings = {name: setting for name, setting in config if name not in TERMS}
    if row.unit == "token":
        values, metrics = row.function(said[row.reads], **{name: streams[name] for name in row.inputs}, **settings)
        return _with_terms(config, values, metrics, said, streams)
    known = _of_sequences(said, streams, inputs)
    if row.unit == "pair":
        known = _of_pairs(known)
    return row.function(**{name: known[name] for name in row.inputs}, **settings)


def finished(metrics: Mapping[str, float]) -> dict[str, float]:
    """Means as they are reported: a second moment becomes a standard deviation, that of the ratio a sample size.

    ``effective_sample_size`` is ``(Σ r)² / (n Σ r²)``, a share of the tokens.
    """
    done = {name: mean for name, mean in metrics.items() if not name.endswith("_squared")}
    for name, square in metrics.items():
        first = name.removesuffix("_squared")
        if first == name:
            continue
        mean = metrics[first] if first in metrics else metrics[f"{first}_mean"]
        if first == "ratio":
            done["effective_sample_size"] = min(mean * mean / square, 1.0) if square else 0.0
        else:
            done[f"{first}_std"] = math.sqrt(max(square - mean * mean, 0.0))
    return done


def _with_terms(
    config: LossConfig,
    values: Tensor,
    metrics: dict[str, Tensor],
    said: Mapping[str, Tensor],
    streams: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """A token's loss with what any policy's loss may carry: divergence, entropy, the loss of a value head."""
    if isinstance(config, Value):
        return config.coefficient * values, metrics
    if not isinstance(config, PolicyLoss):
        return values, metrics
    penalty = _penalty(config)
    if penalty is not None:
        divergence = KL_ESTIMATORS[penalty.estimator](said["logprobs"], streams["reference_logprobs"])
        values = values + penalty.coefficient * divergence
        metrics = metrics | {f"kl_{penalty.estimator}": divergence.detach()}
    if config.entropy_coefficient:
        values = values - config.entropy_coefficient * said["entropy"]
    if config.proximal_coefficient:
        values = values + config.proximal_coefficient * k3(streams["sampling_logprobs"], said["logprobs"])
    if config.value is not None:
        error, told = value(
            said["values"], returns=streams["returns"], old_values=streams["old_values"], clip=config.value.clip
        )
        values = values + config.value.coefficient * error
        metrics = metrics | told
    return values, metrics


def _of_sequences(
    said: Mapping[str, Tensor], streams: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Sums over trained tokens, lengths and scalars, each [B]; zeros for a reference that is left out."""
    lengths = streams["loss_mask"].sum(-1)
    known = {"lengths": lengths, "reference_logprobs": torch.zeros_like(lengths)}
    known |= {name: values.sum(-1) for name, values in streams.items() if name != "loss_mask"}
    if "logprobs" in said:
        known["logprobs"] = said["logprobs"].sum(-1)
    if "scores" in said:
        known["scores"] = said["scores"]
    scalars = {name: inputs[name] for name in SCALARS if name in inputs}
    return known | scalars | {"margin": inputs.get("margin", torch.zeros_like(lengths))}


def _of_pairs(known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    of_both = {f"chosen_{name}": x[0::2] for name, x in known.items()}
    of_both |= {f"rejected_{name}": x[1::2] for name, x in known.items()}
    return of_both | {"pair_margin": known["margin"][0::2]}


def _penalty(config: LossConfig) -> KL | None:
    """The KL penalty, where it belongs in the loss."""
    if not isinstance(config, PolicyLoss) or config.kl is None or config.kl.place != "loss":
        return None
    return config.kl


def _base(name: str) -> str:
    """``reference_logprobs`` of ``chosen_reference_logprobs``."""
    return name.removeprefix("chosen_").removeprefix("rejected_")


def _check_shapes(
    config: LossConfig, trained: Tensor, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> None:
    said = {name: values for name, values in outputs.items() if name != "scores"}
    for name, values in {**said, **{name: inputs[name] for name in required_inputs(config)}}.items():
        if values.shape != trained.shape:
            raise LossInputError(
                f"{name} has shape {list(values.shape)} beside log-probabilities of shape {list(trained.shape)}: "
                "one value a token is needed"
            )


def _check_held(config: LossConfig, index: int, kind: str, required: Sequence[str], held: Mapping[str, Any]) -> None:
    for name in required:
        if name not in held:
            what = ", ".join(sorted(held)) or f"no {kind}"
            raise LossInputError(f"datum {index} has no {name}, which the loss {config.type} reads: it has {what}")


def _check_reply(config: LossConfig, index: int, datum: Datum) -> None:
    """Refuse a reply of which it is not said whether it is a good one, or to which the policy gives no probability."""
    preferred = datum.scalars.get("preferred", 0.0)
    if "preferred" in required_scalars(config) and preferred not in (0.0, 1.0):
        raise LossInputError(
            f"datum {index}: preferred is {preferred:g}: it must be 1 for the chosen (or a good reply), or 0 for the "
            "rejected (or a bad one)"
        )
    if unit_of(config) != "token" and "logprobs" in model_outputs(config) and not (datum.loss_mask > 0).any():
        raise LossInputError(
            f"datum {index} has no token to train on, so that its reply is empty, and the loss {config.type} compares "
            "replies: leave it out"
        )


def _check_agreed(data: Sequence[Datum], chosen: int, rejected: int) -> None:
    """Refuse a pair whose two data say different things of the pair."""
    for name, absent in (("margin", 0.0), ("weight", 1.0)):
        asked = [data[index].scalars.get(name, absent) for index in (chosen, rejected)]
        if asked[0] != asked[1]:
            raise LossInputError(
                f"data {chosen} and {rejected} are a pair, and {name} is {asked[0]:g} on the one and {asked[1]:g} on "
                "the other: it is the pair's, so put the same on both"
            )


def _check_logprobs(index: int, name: str, datum: Datum) -> None:
    values = datum.streams[name]
    above = (datum.loss_mask > 0) & (values > LOGPROB_ROUNDING)
    if above.any():
        at = int(above.argmax())
        raise LossInputError(
            f"datum {index}: {name}[{at}] is {values[at]:.6g}, and a log-probability is never above 0: "
            "check that these are logarithms, and of these tokens"
        )
