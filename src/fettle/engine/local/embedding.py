"""Embeddings: a sequence's states at one layer, as one."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from fettle.engine.base import Pooling
from fettle.engine.local.model import LanguageModel
from fettle.engine.local.reading import batches
from fettle.errors import ConfigError
from fettle.types import Floats, Tokens

POOLINGS: Mapping[Pooling, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "mean": lambda states: states.mean(0),
        "last_token": lambda states: states[-1],
        "cls_token": lambda states: states[0],
    }
)
"""States [T, H] of one sequence to one [H]."""


def embed(
    model: LanguageModel, sequences: Sequence[Tokens], *, layer: int, pooling: Pooling, budget: int
) -> list[Floats]:
    """For each sequence [H]. ``layer`` is counted from the embeddings, 0, or back from the last, -1.

    Raises:
        ConfigError: the model has no such layer, or there is no such pooling.
        LossInputError: a sequence is empty.
        EngineError: there is not enough memory.
    """
    layers = int(model.module.config.get_text_config().num_hidden_layers)
    if not -layers - 1 <= layer <= layers:
        raise ConfigError(
            f"layer {layer} was asked for, and {model.source} has {layers}: 0 to {layers}, or -1 for the last"
        )
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling {pooling!r} is none of {', '.join(POOLINGS)}")
    found = [np.zeros(0, np.float32)] * len(sequences)
    for batch in batches(model, sequences, budget, last=True):
        with batch.laid.enough_memory():
            states = model.states_of_layer(batch.laid, layer % (layers + 1))
            for row, index in enumerate(batch.indices):
                columns = torch.arange(len(sequences[index]), device=model.device)
                own = states[batch.laid.places(torch.full_like(columns, row), columns)].float()
                found[index] = POOLINGS[pooling](own).cpu().numpy()
    return found
