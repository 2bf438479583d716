"""How a batch is laid out for a forward pass: as trees end to end in one row, or right-padded side by side.

Neither needs an attention mask. In a row, the attention of each tree knows its parts; side by side, a token sees under
a causal mask only what stands before it, and padding stands after. The layout depends on the operation's own data
alone, so its bits do not depend on what else is being done.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.engine.filling import filled
from fettle.engine.local.attention import Attention
from fettle.engine.local.memory import enough_memory
from fettle.engine.local.tree import Tree, computed, forest, tree_bins
from fettle.engine.local.tree_attention import Branches, TreeAttention
from fettle.errors import ConfigError
from fettle.types import Datum, Floats, Ints


@dataclass(frozen=True, slots=True)
class Laid:
    """B sequences as they are run, and where each of their states is found."""

    tokens: Tensor  # [R, N]: one row of trees, or right-padded sequences
    positions: Tensor | None
    """[1, N]; None where every row counts from 0."""
    attention: Attention | None
    """None where every row is one sequence."""
    shared: Tensor  # [B]
    """How many tokens a sequence begins with that stand elsewhere than the rest."""
    shared_start: Tensor  # [B]
    own_start: Tensor  # [B]

    def places(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[n]: which of the R·N states is that of token ``columns`` of sequence ``rows``."""
        past = columns - self.shared[rows]
        return torch.where(past < 0, self.shared_start[rows] + columns, self.own_start[rows] + past)

    def enough_memory(self) -> AbstractContextManager[None]:
        """These sequences are run inside, for which there may be too little memory."""
        size = self.tokens.numel()
        return enough_memory(f"for a micro-batch of {size} tokens", f"lower engine.train_tokens below {size}")


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """B sequences, right-padded to T tokens. Position t of every array speaks of token t."""

    indices: list[int]
    """Which of the call's data these are."""
    laid: Laid
    targets: Tensor  # [B, T]
    loss_mask: Tensor  # [B, T]
    weights: Tensor  # [B, T]
    temperature: Tensor  # [B]
    lengths: Tensor  # [B]
    streams: dict[str, Tensor]  # name -> [B, T]
    scalars: dict[str, Tensor]  # name -> [B]


def layouts(
    sequences: Sequence[Ints],
    *,
    packed: bool,
    budget: int,
    device: torch.device,
    together: Sequence[Sequence[int]] | None = None,
    steady: int | None = None,
) -> list[tuple[list[int], Laid]]:
    """Micro-batches of at most ``budget`` computed tokens: which sequences, and how they are laid out.

    Those longer than ``steady`` tokens are padded apart from the others (see ``positions.steady_length``).

    Raises:
        ConfigError: one sequence or pair alone is longer than the budget, or a pair stands on both sides of that.
    """
    lengths = [len(sequence) for sequence in sequences]
    if packed:
        trees = forest(sequences, together=together)
        full = max([computed(tree, lengths) for tree in trees], default=0)
        groups = tree_bins(trees, sequences, budget=filled(budget, device.type, largest=full))
        return [
            ([i for tree in trees for i in tree.members], row_of_trees(trees, sequences, device)) for trees in groups
        ]
    units = [(i,) for i in range(len(lengths))] if together is None else together
    full = max([len(unit) * max(lengths[i] for i in unit) for unit in units], default=0)
    indices = bins(lengths, budget=filled(budget, device.type, largest=full), together=together, steady=steady)
    return [(rows, side_by_side([sequences[i] for i in rows], device)) for rows in indices]


def bins(
    lengths: Sequence[int],
    *,
    budget: int,
    together: Sequence[Sequence[int]] | None = None,
    steady: int | None = None,
) -> list[list[int]]:
    """Indices in groups of like length, each with at most ``budget`` tokens, padding included.

    What stands ``together`` (the two of a pair) is never parted, and keeps its order. What is longer than
    ``steady`` tokens is never in one group with what is not.

    Raises:
        ConfigError: one sequence or pair alone is longer than the budget, or a pair stands on both sides of ``steady``.
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
    before = False
    for unit in order:
        longest = max(lengths[i] for i in unit)
        past = steady is not None and longest > steady
        if any((steady is not None and lengths[i] > steady) != past for i in unit):
            raise ConfigError(
                f"data {' and '.join(map(str, unit))} are a pair, and only one is longer than {steady} tokens, "
                "beyond which this model's positions are others: shorten it"
            )
        if not groups or past != before or (len(groups[-1]) + len(unit)) * longest > budget:
            groups.append([])
        groups[-1] += unit
        before = past
    return groups


def side_by_side(sequences: Sequence[Ints], device: torch.device) -> Laid:
    """Right-padded with zeros."""
    tokens = padded(sequences, np.int64, device)
    starts = torch.arange(len(tokens), device=device) * tokens.shape[1]
    nothing = torch.zeros_like(starts)
    return Laid(tokens, None, None, nothing, nothing, starts)


def row_of_trees(trees: Sequence[Tree], sequences: Sequence[Ints], device: torch.device) -> Laid:
    """Tree after tree, each what it shares and then the own parts of its members, in their order."""
    branches: list[Branches] = []
    tokens: list[Ints] = []
    positions: list[NDArray[np.int64]] = []
    own_starts: list[NDArray[np.int64]] = []
    start = 0
    for tree in trees:
        own = [sequences[i][tree.shared :] for i in tree.members]
        tokens += [sequences[tree.members[0]][: tree.shared], *own]
        positions += [np.arange(tree.shared), *(tree.shared + np.arange(len(part)) for part in own)]
        branches.append(Branches(start, tree.shared, tuple(len(part) for part in own)))
        own_starts.append(branches[-1].fork + np.cumsum([0, *branches[-1].own[:-1]]))
        start = branches[-1].end
    sizes = [len(tree.members) for tree in trees]
    where = np.stack(
        [
            np.repeat([tree.shared for tree in trees], sizes),
            np.repeat([each.start for each in branches], sizes),
            np.concatenate(own_starts),
        ]
    )
    shared, shared_start, own_start = torch.from_numpy(where).to(device)
    return Laid(
        torch.from_numpy(np.concatenate(tokens).astype(np.int64)).to(device)[None],
        torch.from_numpy(np.concatenate(positions)).to(device)[None],
        TreeAttention(branches, device),
        shared,
        shared_start,
        own_start,
    )


def micro_batch(
    data: Sequence[Datum], indices: list[int], laid: Laid, streams: Sequence[str], *, scalars: Sequence[str] = ()
) -> MicroBatch:
    """The data at ``indices``, padded with zeros on the right; scalars ``weight`` and ``margin`` are always there."""
    rows = [data[i] for i in indices]
    device = laid.tokens.device

    return MicroBatch(
        indices=indices,
        laid=laid,
        targets=padded([row.tokens if row.targets is None else row.targets for row in rows], np.int64, device),
        loss_mask=padded([row.loss_mask for row in rows], np.float32, device),
        weights=padded([row.weights * row.loss_mask for row in rows], np.float32, device),
        temperature=torch.tensor([row.temperature for row in rows], device=device),
        lengths=torch.tensor([len(row.tokens) for row in rows], device=device),
        streams={name: padded([_stream(row, name) for row in rows], np.float32, device) for name in streams},
        scalars={
            name: torch.tensor([float(row.scalars.get(name, absent)) for row in rows], device=device)
            for name, absent in {**dict.fromkeys(scalars, 0.0), "weight": 1.0, "margin": 0.0}.items()
        },
    )


def _stream(row: Datum, name: str) -> Floats:
    """A mask that a datum does not have is its ``loss_mask``; of all else it has what its loss reads."""
    return row.streams.get(name, row.loss_mask)


def padded(values: Sequence[Ints | Floats], dtype: type[np.generic], device: torch.device) -> Tensor:
    """[B, T], with zeros on the right."""
    table: NDArray[np.generic] = np.zeros((len(values), max(map(len, values))), dtype=dtype)
    for row, value in zip(table, values, strict=True):
        row[: len(value)] = value
    return torch.from_numpy(table).to(device)
