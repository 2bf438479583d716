"""Batches as people and programs send them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fettle.errors import DataError, LossInputError, did_you_mean
from fettle.frames import Tree, batch_of
from fettle.types import Datum, Ints, datum, ids_of

FIELDS = ("tokens", "loss_mask", "targets", "temperature", "group", "scalars", "streams")


def data_of(tree: Tree) -> Sequence[Datum] | None:
    """A ragged batch, or a list of data, each with its ``tokens`` and what goes with them; nothing is None.

    Of one in a list, ``loss_mask`` may be left out: then every token but the first is trained on. What is no field of
    a datum and has one number a token is a stream of that name.

    Raises:
        DataError: it is neither.
        LossInputError: a datum in it cannot be what it is.
    """
    if tree is None or isinstance(tree, Mapping):
        return None if tree is None else batch_of(tree)
    if not isinstance(tree, list) or not tree:
        raise DataError("data must be a batch of arrays, or a list of objects with tokens")
    return [_datum(f"data[{index}]", one) for index, one in enumerate(tree)]


def _datum(place: str, tree: Tree) -> Datum:
    if not isinstance(tree, Mapping) or "tokens" not in tree:
        raise DataError(f"{place} must be an object with tokens")
    tokens = _numbers(place, "tokens", tree["tokens"])
    streams = {name: tree[name] for name in tree if name not in FIELDS}
    for name, values in streams.items():
        if not isinstance(values, list | np.ndarray):
            raise DataError(f"{place} has no field {name!r}{did_you_mean(name, FIELDS)}")
    streams |= _mapping(place, "streams", tree)
    targets = None if tree.get("targets") is None else _numbers(place, "targets", tree["targets"])
    try:
        made = datum(
            tokens.tolist(),
            _numbers(place, "loss_mask", tree.get("loss_mask", [0] + [1] * (len(tokens) - 1))).tolist(),
            temperature=_number(place, "temperature", tree.get("temperature", 1.0)),
            group=str(tree.get("group", "")),
            scalars={n: _number(place, n, v) for n, v in _mapping(place, "scalars", tree).items()},
            **{name: _numbers(place, name, values).astype(np.float32) for name, values in streams.items()},
        )
        return made if targets is None else replace(made, targets=_ids(place, targets))
    except LossInputError as error:
        raise LossInputError(f"{place}: {error.message}") from error


def _numbers(place: str, name: str, value: Tree) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{place}.{name} must be a list of numbers") from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuf"):
        raise DataError(f"{place}.{name} must be a list of numbers")
    return array


def _ids(place: str, values: np.ndarray[Any, np.dtype[Any]]) -> Ints:
    if values.dtype.kind not in "iu":
        raise DataError(f"{place}.targets must be whole numbers")
    return ids_of("targets", values)


def _number(place: str, name: str, value: Tree) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{place}.{name} must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise DataError(f"{place}.{name} is too large a number") from error


def _mapping(place: str, name: str, tree: Mapping[str, Tree]) -> Mapping[str, Tree]:
    value = tree.get(name, {})
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{place}.{name} must be a mapping by name")
    return value
