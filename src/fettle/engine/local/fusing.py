"""Several matrices as one, so that what shares its input is one product."""

from collections.abc import Sequence

import torch
from torch import Tensor


def fused(weights: Sequence[Tensor]) -> Tensor:
    """The weights stacked on dim 0.

    A view where they lie one after the other in one storage, contiguous each: it costs nothing and shows every later
    write. Else a copy, which costs their bytes once more for as long as it is kept, and shows none.
    """
    first = weights[0]
    if len(weights) == 1:
        return first
    if not _adjacent(weights):
        return torch.cat(list(weights))
    rows = sum(weight.shape[0] for weight in weights)
    return first.as_strided((rows, *first.shape[1:]), first.stride(), first.storage_offset())


def _adjacent(weights: Sequence[Tensor]) -> bool:
    storage, end = weights[0].untyped_storage().data_ptr(), weights[0].storage_offset()
    for weight in weights:
        alike = weight.dtype == weights[0].dtype and weight.shape[1:] == weights[0].shape[1:]
        here = weight.untyped_storage().data_ptr() == storage and weight.storage_offset() == end
        if not (alike and here and weight.is_contiguous()):
            return False
        end += weight.numel()
    return True
