"""A columnar batch and a documented loss's name, as calls of a policy."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fettle.broker.documented import row_of, settings_of
from fettle.chat import check_same_tokenizer
from fettle.config import Frozen, PolicySpec, Reading
from fettle.config.documented import Referenced
from fettle.engine import Engine, Policy, Sampler
from fettle.errors import ConfigError
from fettle.losses import model_outputs
from fettle.types import Datum, Floats


@dataclass(frozen=True, slots=True)
class Trainee:
    """A policy, what it was made of, and the engine that it is on."""

    engine: Engine
    policy: Policy
    spec: PolicySpec
    companions: set[str] = field(default_factory=set)
    """References that were found to speak of the same tokens."""


@dataclass(frozen=True, slots=True)
class DocumentedResult:
    """What a documented loss came to; ``metrics`` have their documented names."""

    loss: float
    metrics: dict[str, float]


async def forward_backward(
    trainee: Trainee, batch: Mapping[str, object], loss: str, settings: Mapping[str, object]
) -> DocumentedResult:
    """Accumulate the gradient of a documented loss over one batch of its documented format.

    What the batch may leave out is first read from the models: values, the reference's log-probabilities, and those
    of the policy itself. Calls of one policy must be made one after another.

    Raises:
        ConfigError: there is no such loss or setting, or the policy lacks the head that the loss reads.
        LossInputError: the batch is not of the loss's format.
        ModelError: there is no such reference, or its tokenizer is not the policy's.
    """
    row, chosen = row_of(loss), settings_of(loss, settings)
    data = row.batch(batch)
    for stream in row.reads(chosen):
        if any(stream not in datum.streams for datum in data):
            data = await _with_read(trainee, chosen, data, stream)
    lowered = row.prepare(chosen, data)
    if "values" in model_outputs(lowered.loss):
        _check_value_head(trainee)
    result = await trainee.policy.forward_backward(lowered.data, lowered.loss)
    total, metrics = row.told(chosen, lowered, result)
    return DocumentedResult(total, metrics)


async def _with_read(trainee: Trainee, settings: Frozen, data: Sequence[Datum], stream: str) -> list[Datum]:
    """The data with a stream that they lack."""
    if stream == "old_values":
        _check_value_head(trainee)
        found = (await trainee.policy.forward(data, Reading(of="values"))).values
    elif stream == "reference_logprobs":
        named = settings.reference_model if isinstance(settings, Referenced) else None
        found = await _logprobs(await _reference(trainee, named), data)
    else:
        found = (await trainee.policy.forward(data, Reading(of="logprobs"))).logprobs
    return [
        replace(datum, streams={**datum.streams, stream: values}) for datum, values in zip(data, found, strict=True)
    ]


async def _reference(trainee: Trainee, named: str | None) -> Sampler:
    """The model of that name, or the one that the policy started from."""
    start = str(trainee.spec.model)
    if named is not None and named not in trainee.companions:
        await asyncio.to_thread(check_same_tokenizer, start, named)
        trainee.companions.add(named)
    return await trainee.engine.sampler(named or start)


async def _logprobs(sampler: Sampler, data: Sequence[Datum]) -> list[Floats]:
    rows = await asyncio.gather(*(sampler.logprobs(d.tokens.tolist(), temperature=d.temperature) for d in data))
    return [np.array([0.0, *row[1:]], np.float32) * datum.loss_mask for row, datum in zip(rows, data, strict=True)]


def _check_value_head(trainee: Trainee) -> None:
    if trainee.spec.head != "value":
        raise ConfigError(
            "the loss trains a critic, and this policy has no value head: create it with head: value, or give the "
            "batch values and set value_loss_coef to 0"
        )
