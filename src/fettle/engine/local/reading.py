"""Reading: what frozen weights say of plain sequences, with no loss and no gradient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fettle.engine.local.head import Head
from fettle.engine.local.layout import Laid, layouts, padded
from fettle.engine.local.model import LanguageModel
from fettle.errors import ConfigError, LossInputError
from fettle.types import Floats, Ints, Tokens


@dataclass(frozen=True, slots=True)
class Read:
    """Sequences to be read, right-padded, and how they are run."""

    indices: list[int]
    laid: Laid
    tokens: Tensor  # [B, T]
    wanted: Tensor  # [B, T]
    lengths: Tensor  # [B]


def logprobs(model: LanguageModel, sequences: Sequence[Tokens], *, temperature: float, budget: int) -> list[Floats]:
    """For each sequence [T] the log-probability of each token after those before it; 0 for the first.

    Raises:
        ConfigError: the temperature is not above 0.
        LossInputError: a sequence is empty.
        EngineError: there is not enough memory.
    """
    if not temperature > 0:
        raise ConfigError(f"log-probabilities were asked for at temperature {temperature}: it must be above 0")
    found: list[Floats] = [np.zeros(len(sequence), np.float32) for sequence in sequences]
    for batch in batches(model, sequences, budget, last=False):
        tau = torch.full((len(batch.indices),), temperature, device=model.device)
        with batch.laid.enough_memory():
            said = model.outputs(batch.laid, batch.tokens, batch.wanted, tau)["logprobs"]
        for row, index in enumerate(batch.indices):
            found[index] = said[row, : len(sequences[index])].float().cpu().numpy()
    return found


def scores(model: LanguageModel, head: Head, sequences: Sequence[Tokens], *, budget: int) -> list[float]:
    """For each sequence what ``head`` says of its last state.

    Raises:
        LossInputError: a sequence is empty.
        EngineError: there is not enough memory.
    """
    found = [0.0] * len(sequences)
    for batch in batches(model, sequences, budget, last=True):
        tau = torch.ones(len(batch.indices), device=model.device)
        with batch.laid.enough_memory():
            said = model.outputs(
                batch.laid, batch.tokens, batch.wanted, tau, read=("scores",), head=head, lengths=batch.lengths
            )
        for index, score in zip(batch.indices, said["scores"].tolist(), strict=True):
            found[index] = score
    return found


def batches(model: LanguageModel, sequences: Sequence[Tokens], budget: int, *, last: bool) -> Iterator[Read]:
    """Micro-batches of sequences of like length. ``last``: whether somebody asks what is made of the last token.

    Raises:
        LossInputError: a sequence is empty, or holds a token id outside the vocabulary.
        ModelError: a sequence is longer than the context.
    """
    for index, sequence in enumerate(sequences):
        if not len(sequence):
            raise LossInputError(f"sequence {index} is empty: there is nothing to read in it")
        model.check_tokens(f"sequence {index}", min(sequence), max(sequence), len(sequence))
    rows: list[Ints] = [np.asarray(sequence, np.int32) for sequence in sequences]
    needed = rows if last else [row[: max(len(row) - 1, 1)] for row in rows]
    laid_out = layouts(needed, packed=model.packed, budget=budget, device=model.device, steady=model.steady)
    for indices, laid in laid_out:
        tokens = padded([rows[i] for i in indices], np.int64, model.device)
        lengths = torch.tensor([len(rows[i]) for i in indices], device=model.device)
        columns = torch.arange(tokens.shape[1], device=model.device)
        yield Read(indices, laid, tokens, (columns > 0) & (columns < lengths[:, None]), lengths)
