"""``forward_backward`` requests to calls: what a client sends as a datum becomes one, or K of them.

A client shifts by itself: position i of its input [N] predicts ``target_tokens[i]``. Ours is the same sequence with one
token more, so that what belongs to target i stands at place i + 1. Targets [N, K] are K data of the same tokens.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from fettle.calls import Forward, ForwardBackward
from fettle.errors import DataError, LossInputError, TooLargeError, did_you_mean
from fettle.service.faces.tinker import tensors
from fettle.service.faces.tinker import tinker_wire_pb2 as wire
from fettle.service.faces.tinker.bodies import MOST_SEQ
from fettle.service.faces.tinker.losses import Row, loss_of, row_of
from fettle.types import Datum, Ints

MOST_TOKEN = 2**31 - 1
MOST_NUMBERS = 1 << 25

Inputs = Mapping[str, tensors.Array]


@dataclass(frozen=True, slots=True)
class Given:
    """One datum as it was sent."""

    tokens: Ints
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Batch:
    """One request, read."""

    model: str
    seq: int
    """0: the client gave none."""
    call: Forward | ForwardBackward
    widths: tuple[int, ...]
    """For each datum sent, K of its targets [N, K]; 0 for [N]."""


def of_proto(body: bytes, *, stable_reinforce: bool = True) -> Batch:
    """A request in protobuf.

    Raises:
        DataError: the bytes are no such request.
        LossInputError: a datum cannot be what it is.
        ConfigError: there is no such loss or setting.
    """
    request = wire.ForwardBackwardRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise DataError("the body is no ForwardBackwardRequest in protobuf, or was cut off") from error
    data = enumerate(request.data)
    given = _bounded(Given(_text(i, datum.model_input), _inputs_of(i, datum)) for i, datum in data)
    values = {
        key: value.text if value.HasField("text") else value.number for key, value in request.loss_fn_config_v2.items()
    }
    config = values or dict(request.loss_fn_config)
    call, widths = _called(given, request.loss_fn, config, request.forward_only, stable_reinforce=stable_reinforce)
    if not 0 <= request.seq_id <= MOST_SEQ:
        raise DataError(f"seq_id must be a whole number from 1 to {MOST_SEQ}: requests of a model are numbered from 1")
    return Batch(request.model_id, request.seq_id, call, widths)


def of_json(tree: Any, *, forward_only: bool = False, stable_reinforce: bool = True) -> Batch:
    """A request in JSON, as clients before protobuf sent it; raises as :func:`of_proto`."""
    request = tree if isinstance(tree, Mapping) else {}
    form = request.get("forward_backward_input") or request.get("forward_input")
    model, seq = request.get("model_id"), request.get("seq_id")
    if seq is not None and not (type(seq) is int and 1 <= seq <= MOST_SEQ):
        raise DataError(f"seq_id must be a whole number from 1 to {MOST_SEQ}: requests of a model are numbered from 1")
    if not isinstance(form, Mapping) or not isinstance(model, str):
        raise DataError("a request needs model_id, and forward_backward_input with data and loss_fn")
    data, config = form.get("data"), form.get("loss_fn_config") or {}
    if not isinstance(data, list) or not isinstance(config, Mapping) or not isinstance(form.get("loss_fn"), str):
        raise DataError("forward_backward_input needs data, a list, and loss_fn, a name; loss_fn_config is an object")
    given = _bounded(_given(i, datum) for i, datum in enumerate(data))
    call, widths = _called(given, form["loss_fn"], config, forward_only, stable_reinforce=stable_reinforce)
    return Batch(model, seq or 0, call, widths)


def widths_said(widths: Sequence[int]) -> str:
    """Widths as a short text that stands in an id: ``4x0.2x20`` is four of 0 and two of 20; empty, where all are 0."""
    if not any(widths):
        return ""
    return ".".join(f"{len(list(same))}x{width}" for width, same in itertools.groupby(widths))


def widths_read(said: str, data: int) -> list[int]:
    """What :func:`widths_said` said; ``data`` is how many of ours there are.

    Raises:
        DataError: it is no such text.
    """
    if not said:
        return [0] * data
    try:
        runs = [tuple(map(int, run.split("x"))) for run in said.split(".")]
        return [width for count, width in runs for _ in range(min(count, data))]
    except ValueError as error:
        raise DataError(f"{said!r} says no widths") from error


def _bounded(given: Iterable[Given]) -> list[Given]:
    """The data of one request, of which sparse rows may say much in few bytes.

    Raises:
        TooLargeError: they are too many numbers.
    """
    found, numbers = [], 0
    for one in given:
        numbers += sum(values.size for values in one.inputs.values())
        if numbers > MOST_NUMBERS:
            raise TooLargeError(f"the data hold more than {MOST_NUMBERS} numbers: send fewer of them at once")
        found.append(one)
    return found


def _called(
    given: Sequence[Given], name: str, config: Mapping[str, float | str], forward_only: bool, *, stable_reinforce: bool
) -> tuple[Forward | ForwardBackward, tuple[int, ...]]:
    if not given:
        raise LossInputError("data is empty: send at least one datum")
    row = row_of(name, stable_reinforce=stable_reinforce)
    loss = loss_of(name, row, config)
    data: list[Datum] = []
    widths = []
    for index, one in enumerate(given):
        try:
            made = _own(one) if row is None else _of_table(name, row, one)
        except LossInputError as error:
            raise LossInputError(f"datum {index}: {error.message}") from error
        data += made
        widths.append(one.inputs["target_tokens"].shape[1] if one.inputs["target_tokens"].ndim == 2 else 0)
    return (Forward if forward_only else ForwardBackward)(data, loss), tuple(widths)


def _of_table(name: str, row: Row, given: Given) -> list[Datum]:
    """The data of a loss that the Tinker API knows."""
    reads = {**row.inputs, **row.optional, "weights": "weights"}
    for key in given.inputs:
        if key != "target_tokens" and key not in reads:
            raise LossInputError(f"{name} does not read {key!r}{did_you_mean(key, reads)}: it reads {_named(reads)}")
    targets = _targets(given)
    if targets.ndim == 2 and name != "cross_entropy":
        raise LossInputError(f"target_tokens have shape {list(targets.shape)}, and {name} takes one target a position")
    for key in row.inputs:
        if key not in given.inputs:
            raise LossInputError(f"{name} needs {key}: it reads {_named(reads)}")
    columns = {stream: _column(key, given, targets) for key, stream in reads.items() if key in given.inputs}
    if targets.ndim == 1:
        return [_datum(given.tokens, targets, columns)]
    return [
        _datum(given.tokens, targets[:, k], {stream: values[:, k] for stream, values in columns.items()})
        for k in range(targets.shape[1])
    ]


def _own(given: Given) -> list[Datum]:
    """The datum of a loss of ours: an input of one value is a scalar (``group`` is what it shares with its partner)."""
    targets = _targets(given)
    if targets.ndim == 2:
        raise LossInputError(f"target_tokens have shape {list(targets.shape)}: this loss takes one target a position")
    own = {key: values for key, values in given.inputs.items() if key != "target_tokens"}
    scalars = {key: float(values[0]) for key, values in own.items() if values.shape == (1,) and len(targets) > 1}
    columns = {key: _column(key, given, targets) for key in own if key not in scalars}
    group = f"{scalars.pop('group'):g}" if "group" in scalars else ""
    mask = columns.pop("loss_mask", None)
    made = _datum(given.tokens, targets, columns)
    trained = made.loss_mask if mask is None else _shifted(mask)
    return [Datum(made.tokens, trained, made.streams, group=group, scalars=scalars, targets=made.targets)]


def _targets(given: Given) -> tensors.Array:
    """[N] or [N, K]."""
    if not len(given.tokens):
        raise LossInputError("model_input is empty: send at least one token")
    targets = given.inputs.get("target_tokens")
    if targets is None:
        raise LossInputError("target_tokens are missing: give the token that each position predicts")
    if targets.dtype.kind not in "iu":
        raise LossInputError(f"target_tokens are {targets.dtype}: send int64")
    if targets.ndim not in (1, 2) or len(targets) != len(given.tokens) or not targets.size:
        raise LossInputError(
            f"target_tokens have shape {list(targets.shape)} beside {len(given.tokens)} tokens of input"
        )
    if targets.min() < 0 or targets.max() > MOST_TOKEN:
        raise LossInputError("target_tokens hold an id that no vocabulary has")
    return targets


def _column(key: str, given: Given, targets: tensors.Array) -> tensors.Array:
    values = given.inputs[key]
    if values.dtype.kind != "f":
        raise LossInputError(f"{key} are {values.dtype}: send float32")
    if values.shape != targets.shape:
        raise LossInputError(f"{key} have shape {list(values.shape)}, and target_tokens {list(targets.shape)}")
    return values


def _datum(tokens: Ints, targets: tensors.Array, columns: Mapping[str, tensors.Array]) -> Datum:
    whole = np.append(tokens, targets[-1:]).astype(np.int32)
    mask = np.ones(len(whole), np.float32)
    mask[0] = 0
    # Most targets are the sequence itself, one further: then they need not be said.
    said = None if np.array_equal(targets, whole[1:]) else _shifted(targets, np.int32)
    return Datum(whole, mask, {stream: _shifted(values) for stream, values in columns.items()}, targets=said)


def _shifted(values: tensors.Array, kind: type[np.generic] = np.float32) -> tensors.Array:
    """[N] to [N + 1], 0 in the first place."""
    return np.concatenate([np.zeros(1, kind), values.astype(kind)])


def _text(index: int, chunks: Iterable[wire.Chunk]) -> Ints:
    parts = []
    for chunk in chunks:
        kind = chunk.WhichOneof("chunk")
        if kind != "encoded_text":
            raise LossInputError(f"datum {index}: a chunk of type {kind} was sent, and the models here read text only")
        if len(chunk.encoded_text.tokens) % 4:
            raise LossInputError(f"datum {index}: the tokens of a chunk are no whole number of int32 values")
        parts.append(np.frombuffer(chunk.encoded_text.tokens, "<i4"))
    return _ids(index, np.concatenate(parts) if parts else np.zeros(0, np.int32))


def _ids(index: int, tokens: tensors.Array) -> Ints:
    if len(tokens) and (tokens.min() < 0 or tokens.max() > MOST_TOKEN):
        raise LossInputError(f"datum {index}: model_input holds a token id that no vocabulary has")
    return tokens.astype(np.int32)


def _inputs_of(index: int, datum: wire.Datum) -> Inputs:
    found = {}
    for name, tensor in datum.loss_fn_inputs.items():
        try:
            found[name] = _dense(tensors.of_proto(name, tensor))
        except LossInputError as error:
            raise LossInputError(f"datum {index}: {error.message}") from error
    return found


def _given(index: int, datum: Any) -> Given:
    """A datum in JSON."""
    said = datum if isinstance(datum, Mapping) else {}
    form, inputs = said.get("model_input"), said.get("loss_fn_inputs")
    chunks = form.get("chunks") if isinstance(form, Mapping) else None
    if not isinstance(chunks, list) or not isinstance(inputs, Mapping):
        raise DataError(f"datum {index} needs model_input with chunks, a list, and loss_fn_inputs, an object")
    arrays = {name: _dense(tensors.of_json(name, tensor)) for name, tensor in inputs.items()}
    return Given(_ids(index, np.array(text_tokens(chunks), np.int64)), arrays)


def text_tokens(chunks: Sequence[Any]) -> list[int]:
    """The tokens of a model input in JSON.

    Raises:
        DataError: a chunk is no text, or holds something else than ids.
    """
    tokens: list[int] = []
    for chunk in chunks:
        kind = chunk.get("type", "encoded_text") if isinstance(chunk, Mapping) else None
        if kind != "encoded_text":
            raise DataError(f"a chunk of type {kind} was sent, and the models here read text only")
        given = chunk.get("tokens")
        if not isinstance(given, list) or not all(type(token) is int and 0 <= token <= MOST_TOKEN for token in given):
            raise DataError("the tokens of a chunk must be a list of ids: whole numbers from 0")
        tokens += given
    return tokens


def _dense(value: tensors.Array | tensors.Sparse) -> tensors.Array:
    return value.dense() if isinstance(value, tensors.Sparse) else value


def _named(reads: Iterable[str]) -> str:
    return ", ".join(["target_tokens", *reads])
