"""How a batch is laid out for a forward pass: sequences of like length share a right-padded micro-batch.

No attention mask is needed: under a causal mask a token sees only what stands before it, and padding stands
after. A mask would turn off the fast attention kernel of the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.errors import ConfigError
from fettle.types import Datum, Floats, Ints


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """B sequences, right-padded to T tokens. Position t of every array speaks of token t."""

    indices: list[int]
    """Which of the call's data these are."""
    tokens: Tensor  # [B, T]
    loss_mask: Tensor  # [B, T]
    weights: Tensor  # [B, T]
    temperature: Tensor  # [B]
    lengths: Tensor  # [B]
    streams: dict[str, Tensor]  # name -> [B, T]
    scalars: dict[str, Tensor]  # name -> [B]


def bins(lengths: Sequence[int], *, budget: int, together: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
    """Indices in groups of like length, each with at most ``budget`` tokens, padding included.

    What stands ``together`` (the two of a pair) is never parted, and keeps its order. The layout depends on the lengths
    alone, so an operation's bits do not depend on what else is being done.

    Raises:
        ConfigError: one sequence or pair alone is longer than the budget.
    """
    units = [(index,) for index in range(len(lengths))] if together is None else [tuple(unit) for unit in together]
    order = sorted(units, key=lambda unit: (max(lengths[i] for i in unit), unit))
    if order and max(lengths[i] for i in order[-1]) * len(order[-1]) > budget:
        longest = max(order[-1], key=lambda i: lengths[i])
        alone = "a micro-batch" if len(order[-1]) == 1 else "a micro-batch, which holds both of its pair"
        raise ConfigError(
            f"datum {longest} has {lengths[longest]} tokens, and engine.train_tokens allows {budget} in {alone}: "
            "raise engine.train_tokens, or shorten the sequence"
        )
    groups: list[list[int]] = []
    for unit in order:
        longest = max(lengths[i] for i in unit)
        if not groups or (len(groups[-1]) + len(unit)) * longest > budget:
            groups.append([])
        groups[-1] += unit
    return groups


def micro_batch(
    data: Sequence[Datum],
    indices: list[int],
    streams: Sequence[str],
    device: torch.device,
    *,
    scalars: Sequence[str] = (),
) -> MicroBatch:
    """The data at ``indices``, padded with zeros on the right; scalars ``weight`` and ``margin`` are always there."""
    rows = [data[i] for i in indices]
    length = max(len(row.tokens) for row in rows)

    def padded(values: Sequence[Ints | Floats], dtype: type[np.generic]) -> Tensor:
        table: NDArray[np.generic] = np.zeros((len(rows), length), dtype=dtype)
        for row, value in zip(table, values, strict=True):
            row[: len(value)] = value
        return torch.from_numpy(table).to(device)

    return MicroBatch(
        indices=indices,
        tokens=padded([row.tokens for row in rows], np.int64),
        loss_mask=padded([row.loss_mask for row in rows], np.float32),
        weights=padded([row.weights * row.loss_mask for row in rows], np.float32),
        temperature=torch.tensor([row.temperature for row in rows], device=device),
        lengths=torch.tensor([len(row.tokens) for row in rows], device=device),
        streams={name: padded([row.streams[name] for row in rows], np.float32) for name in streams},
        scalars={
            name: torch.tensor([float(row.scalars.get(name, absent)) for row in rows], device=device)
            for name, absent in {**dict.fromkeys(scalars, 0.0), "weight": 1.0, "margin": 0.0}.items()
        },
    )
