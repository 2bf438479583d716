"""Columns of a batch as arrays: all that are needed and no others, of shapes that agree, with numbers that can be."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fettle.errors import LossInputError, did_you_mean
from fettle.types import LOGPROB_ROUNDING

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Columns = Mapping[str, Array]


def arrays(batch: Mapping[str, object], *, required: Collection[str], optional: Collection[str] = ()) -> Columns:
    """Every column as an array, from lists, arrays, or tensors that hold no gradient.

    Raises:
        LossInputError: a key is missing or is not known, or a column holds no numbers, or too few or many in a row.
    """
    known = [*required, *optional]
    for name in batch:
        if name not in known:
            raise LossInputError(
                f"nothing here reads {name}: a batch may hold {', '.join(known)}{did_you_mean(name, known)}"
            )
    for name in required:
        if name not in batch:
            raise LossInputError(f"{name} is missing: a batch must hold {', '.join(required)}")
    return {name: _array(name, value) for name, value in batch.items()}


def check_shape(columns: Columns, name: str, shape: tuple[int, ...], like: str) -> Array:
    """The column ``name``, which has the ``shape`` that the column ``like`` asks for.

    Raises:
        LossInputError: it has another.
    """
    found = columns[name]
    if found.shape != shape:
        raise LossInputError(
            f"{name} has shape {list(found.shape)}, and {like} of shape {list(columns[like].shape)} asks for"
            f" {list(shape)}: make them agree"
        )
    return found


def token_ids(columns: Columns, name: str, axes: tuple[str, ...]) -> Array:
    """The column ``name``, which holds whole numbers over ``axes``, none of them empty.

    Raises:
        LossInputError: it does not.
    """
    found = columns[name]
    if found.ndim != len(axes) or not found.size:
        raise LossInputError(f"{name} has shape {list(found.shape)}: [{', '.join(axes)}] is needed, and none of them 0")
    if found.dtype.kind not in "iu":
        raise LossInputError(f"{name} holds {found.dtype}: whole numbers are needed")
    return found


def mask(columns: Columns, name: str, shape: tuple[int, ...], like: str) -> Bools:
    """The column ``name``, which holds nothing but 0 and 1.

    Raises:
        LossInputError: it holds something else, or has another shape.
    """
    found = check_shape(columns, name, shape, like)
    if (other := ~np.isin(found, (0, 1))).any():
        raise LossInputError(f"{_first(name, other)} is {found[other][0]}: a mask holds only 0 and 1")
    return found.astype(bool)


def check_finite(name: str, values: Array, where: Bools) -> None:
    """Refuse what is no finite number, naming the first.

    Raises:
        LossInputError: there is one ``where`` it counts.
    """
    if (broken := ~np.isfinite(values) & where).any():
        raise LossInputError(f"{_first(name, broken)} is {values[broken][0]}: every value must be a finite number")


def check_logprobs(name: str, values: Array, where: Bools) -> None:
    """Refuse log-probabilities that are no finite number, or above 0, naming the first.

    Raises:
        LossInputError: there is one ``where`` it counts.
    """
    check_finite(name, values, where)
    if (above := (values > LOGPROB_ROUNDING) & where).any():
        raise LossInputError(f"{_first(name, above)} is {values[above][0]}: the log of a probability is never above 0")


def check_ids(name: str, ids: Array, where: Bools) -> None:
    """Refuse token ids that no vocabulary has, naming the first.

    Raises:
        LossInputError: there is one ``where`` it counts.
    """
    if (wrong := ((ids < 0) | (ids > np.iinfo(np.int32).max)) & where).any():
        raise LossInputError(
            f"{_first(name, wrong)} is {ids[wrong][0]}, and no token has that number: mask padding out"
        )


def check_unbroken(name: str, real: Bools) -> None:
    """Refuse a row whose real tokens stand apart: padding is on the left or on the right.

    Raises:
        LossInputError: there is one.
    """
    starts = np.diff(real.astype(np.int8), axis=-1, prepend=0) == 1
    if (apart := starts.sum(axis=-1) > 1).any():
        raise LossInputError(f"{_first(name, apart)} has 0 between 1s: padding belongs on the left or on the right")


def _array(name: str, value: object) -> Array:
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # what torch and numpy raise for what is no plain array
        raise LossInputError(
            f"{name} cannot be read as an array ({error}): give numbers in rows of one length, or a detached tensor"
        ) from error
    if found.dtype.kind not in "biuf":
        raise LossInputError(f"{name} holds {found.dtype}: numbers are needed")
    return found


def _first(name: str, where: Bools) -> str:
    return f"{name}[{', '.join(map(str, np.argwhere(where)[0]))}]"
