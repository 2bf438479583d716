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
    streams: dict[str, Tensor]  # name -> [B, T]


def bins(lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Indices in groups of like length, each with at most ``budget`` tokens, padding included.

    The layout depends on the lengths alone, so an operation's bits do not depend on what else is being done.

    Raises:
        ConfigError: one sequence alone is longer than the budget.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    if order and lengths[order[-1]] > budget:
        longest = order[-1]
        raise ConfigError(
            f"datum {longest} has {lengths[longest]} tokens, and engine.train_tokens allows {budget} in a micro-batch: "
            "raise engine.train_tokens, or shorten the sequence"
        )
    groups: list[list[int]] = []
    for index in order:
        if not groups or (len(groups[-1]) + 1) * lengths[index] > budget:
            groups.append([])
        groups[-1].append(index)
    return groups


def micro_batch(data: Sequence[Datum], indices: list[int], streams: Sequence[str], device: torch.device) -> MicroBatch:
    """The data at ``indices``, padded with zeros on the right."""
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
        streams={name: padded([row.streams[name] for row in rows], np.float32) for name in streams},
    )
