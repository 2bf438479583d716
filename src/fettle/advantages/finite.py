"""Numbers as float64 arrays, refused where they are none."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fettle.errors import LossInputError
from fettle.types import Floats

Doubles = NDArray[np.float64]
Numbers = Sequence[float] | Doubles | Floats


def finite(noun: str, given: Numbers) -> Doubles:
    """The numbers, each of which must be one.

    Raises:
        LossInputError: one of them is not a finite number.
    """
    values = np.asarray(given, dtype=np.float64)
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise LossInputError(f"{noun} {at} of {values.size} is {values[at]}: every {noun} must be a finite number")
    return values


def one_each(noun: str, given: Numbers, *, beside: Numbers, of: str) -> Doubles:
    """The numbers, which must be finite and as many as those they stand ``beside``.

    Raises:
        LossInputError: they are not.
    """
    values, shape = finite(noun, given), np.shape(beside)
    if values.shape != shape:
        raise LossInputError(
            f"the {noun}s have shape {list(values.shape)} beside {of}s of shape {list(shape)}: give one {noun} a {of}"
        )
    return values


def one_a_token(noun: str, given: Numbers, loss_mask: Numbers) -> Doubles:
    """The numbers, which must be finite and one for each token of the mask.

    Raises:
        LossInputError: they are not.
    """
    return one_each(noun, given, beside=loss_mask, of="token")
