"""Tensors of which each rank has some rows: one safetensors file, which all of them write at once and read parts of."""

import json
import math
import os
from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from fettle.engine.local.group import Group
from fettle.errors import CheckpointError

BYTES, TYPE = 4, "F32"
"""Of a number, all of which are float32."""

ALIGNED = 8
"""Bytes of which the header is a multiple."""


class Rows(NamedTuple):
    """Which rows of a tensor a rank has."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int | None = None
    """None where every rank has all of it."""
    stop: int | None = None

    @property
    def own(self) -> tuple[int, ...]:
        """The shape of these rows."""
        return self.shape if self.start is None or self.stop is None else (self.stop - self.start, *self.shape[1:])


Piece = tuple[Tensor, Rows]
"""A rank's rows [of ``Rows.own``], and which they are."""


def rows_of(shape: tuple[int, ...], group: Group) -> Rows:
    """What a rank has of a tensor that is parted by rows, as FSDP does it: the first ranks have the greatest parts."""
    each = math.ceil(shape[0] / group.size)
    start = min(group.rank * each, shape[0])
    return Rows(shape, start, min(start + each, shape[0]))


def write(path: Path, pieces: Mapping[str, Piece], group: Group) -> None:
    """What this rank has of a file; once every rank has written what it has, and no sooner, it is whole."""
    begins = list(accumulate((BYTES * math.prod(rows.shape) for _, rows in pieces.values()), initial=0))
    header = {
        name: {"dtype": TYPE, "shape": list(rows.shape), "data_offsets": [begin, end]}
        for (name, (_, rows)), (begin, end) in zip(pieces.items(), pairwise(begins), strict=True)
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % ALIGNED)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        if group.rank == 0:
            file.write(len(head).to_bytes(8, "little") + head)
            file.truncate(8 + len(head) + begins[-1])
        for begin, (own, rows) in zip(begins, pieces.values(), strict=False):
            if own.numel() and (rows.start is not None or group.rank == 0):
                first = (rows.start or 0) * math.prod(rows.shape[1:])
                file.seek(8 + len(head) + begin + BYTES * first)
                file.write(own.detach().cpu().contiguous().numpy().data)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, rows: Callable[[str], Rows | None], device: torch.device) -> dict[str, Tensor]:
    """A rank's rows of every tensor in a file, whoever wrote it; of what ``rows`` does not know, all.

    Raises:
        CheckpointError: a tensor has another shape than is known of it.
    """
    found = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118  it is no mapping
            part, wanted = file.get_slice(name), rows(name)
            shape = tuple(part.get_shape())
            if wanted is not None and shape != wanted.shape:
                raise CheckpointError(
                    f"{path} holds {name} as {shape}, and here it is {wanted.shape}: it is of another model"
                )
            parted = wanted is not None and wanted.start is not None
            value = part[wanted.start : wanted.stop] if wanted is not None and parted else file.get_tensor(name)
            found[name] = value.to(device, copy=True)  # it shares its memory with the file
    return found
