"""The only place that divides: weights for a whole batch, made before it is split.

The loss of a batch is the sum of weight times value over all its tokens, so that micro-batches, calls and ranks
add up to the same number. Each function takes the ``loss_mask`` [T] of every sequence and returns weights of the
same shapes; a sequence with no trained token weighs nothing and is not counted.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from fettle.config import FixedLength, Reduction
from fettle.errors import LossInputError
from fettle.types import Floats


def token_mean(loss_masks: Sequence[Floats]) -> list[Floats]:
    """``1 / Σ_i |y_i|``: each token counts the same (DAPO, arXiv:2503.14476)."""
    lengths = _lengths(loss_masks)
    return _spread(loss_masks, [1 / sum(lengths)] * len(lengths))


def sequence_mean(loss_masks: Sequence[Floats]) -> list[Floats]:
    """``1 / (N |y_i|)``: each sequence counts the same, and each token the same within it (GRPO, arXiv:2402.03300)."""
    lengths = _lengths(loss_masks)
    count = _count(lengths)
    return _spread(loss_masks, [1 / (count * max(length, 1)) for length in lengths])


def sequence_sum(loss_masks: Sequence[Floats]) -> list[Floats]:
    """``1 / N``: tokens are summed within a sequence, and sequences averaged (RLOO, arXiv:2402.14740)."""
    lengths = _lengths(loss_masks)
    return _spread(loss_masks, [1 / _count(lengths)] * len(lengths))


def fixed_length(loss_masks: Sequence[Floats], *, length: int) -> list[Floats]:
    """``1 / (N L)``: one constant L, so that length does not change a token's weight (Dr. GRPO, arXiv:2503.20783)."""
    lengths = _lengths(loss_masks)
    return _spread(loss_masks, [1 / (_count(lengths) * length)] * len(lengths))


REDUCTIONS: Mapping[str, Callable[..., list[Floats]]] = MappingProxyType(
    {
        "token_mean": token_mean,
        "sequence_mean": sequence_mean,
        "sequence_sum": sequence_sum,
        "fixed_length": fixed_length,
    }
)
"""By the ``type`` of a reduction's settings."""


def weights(reduction: Reduction, loss_masks: Sequence[Floats], *, max_tokens: int) -> list[Floats]:
    """The weights that ``reduction`` asks for; ``max_tokens`` is the constant of ``fixed_length``.

    Raises:
        LossInputError: no token of the batch is trained on.
    """
    if isinstance(reduction, FixedLength):
        return fixed_length(loss_masks, length=max_tokens)
    return REDUCTIONS[reduction.type](loss_masks)


def _lengths(loss_masks: Sequence[Floats]) -> list[int]:
    lengths = [int((mask > 0).sum()) for mask in loss_masks]
    if not any(lengths):
        raise LossInputError(
            f"no token is trained on in a batch of {len(lengths)} sequences: a loss_mask needs a 1 somewhere"
        )
    return lengths


def _count(lengths: Sequence[int]) -> int:
    return sum(length > 0 for length in lengths)


def _spread(loss_masks: Sequence[Floats], weight: Sequence[float]) -> list[Floats]:
    return [np.where(mask > 0, w, 0).astype(np.float32) for mask, w in zip(loss_masks, weight, strict=True)]
