"""Messages of the binary protocol: sound ones, and such as are filled at random."""

from random import Random
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fettle.service.faces.tinker.tinker_wire_pb2 import DTYPE_FLOAT32, DTYPE_INT64, ForwardBackwardRequest

WORDS = ("target_tokens", "weights", "logprobs", "advantages", "cross_entropy", "ppo", "importance_sampling", "")
NUMBERS = (0, 1, -1, 2, 7, 511, 512, 2**31 - 1, -(2**31), 2**63 - 1)
REALS = (0.0, 1.0, -1.0, 0.2, 1e300, float("nan"), float("inf"))
LIKELY = 0.6
"""How often a field is filled in."""
DEEPEST = 5


def sound(rng: Random) -> ForwardBackwardRequest:
    """A batch that can be trained on."""
    message = ForwardBackwardRequest(loss_fn="cross_entropy")
    for _ in range(2):
        length, datum = rng.randint(2, 16), message.data.add()
        tokens = np.array([rng.randrange(5, 200) for _ in range(length)])
        datum.model_input.add().encoded_text.tokens = tokens.astype("<i4").tobytes()
        targets, weights = datum.loss_fn_inputs["target_tokens"], datum.loss_fn_inputs["weights"]
        targets.dense, targets.dtype = tokens.astype("<i8").tobytes(), DTYPE_INT64
        weights.dense, weights.dtype = np.ones(length, "<f4").tobytes(), DTYPE_FLOAT32
        targets.shape.append(length)
        weights.shape.append(length)
    return message


def filled(rng: Random) -> ForwardBackwardRequest:
    """A message with something of everything in it."""
    message = ForwardBackwardRequest()
    fill(message, rng)
    return message


def fill(message: Message, rng: Random, depth: int = 0) -> None:
    """Give a message's fields, and those of the messages in it, values at random."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() > LIKELY or depth > DEEPEST:
            continue
        if field.is_repeated:
            for _ in range(rng.randrange(4)):
                _add(getattr(message, field.name), field, rng, depth)
        elif field.message_type is not None:
            fill(getattr(message, field.name), rng, depth + 1)
        else:
            setattr(message, field.name, value(field, rng))


def _add(container: Any, field: Any, rng: Random, depth: int) -> None:
    """One more element of a repeated field or a map."""
    kind = field.message_type
    if kind is None:
        container.append(value(field, rng))
    elif not kind.GetOptions().map_entry:
        fill(container.add(), rng, depth + 1)
    else:
        inner = kind.fields_by_name["value"]
        key = value(kind.fields_by_name["key"], rng)
        if inner.message_type is not None:
            fill(container[key], rng, depth + 1)
        else:
            container[key] = value(inner, rng)


def value(field: Any, rng: Random) -> Any:
    """Something that a field can hold."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice((0, 1, 3, 4, 8, 32, 64)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(WORDS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.randrange(len(field.enum_type.values))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(REALS)
    bits = 32 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    signed = kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(max(rng.choice(NUMBERS), low), high)
