"""Whether a model's sequences can be run end to end in one row: its architecture says, and a few tokens prove it."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch

from fettle.engine.local.attention import undrivable
from fettle.engine.local.layout import row_of_trees, side_by_side
from fettle.engine.local.model import LanguageModel
from fettle.engine.local.tree import Tree
from fettle.errors import ConfigError

logger = logging.getLogger(__name__)

SHARED, LENGTHS = 9, (30, 19)
"""The tree that is tried: two sequences of these lengths, and how many tokens both begin with."""

ROUNDING: Mapping[torch.dtype, float] = MappingProxyType({torch.float32: 1e-4, torch.bfloat16: 0.1})
"""How far the same state may differ, by the type of the weights, out of the greatest number in it."""


def packs(model: LanguageModel, layout: Literal["auto", "packed", "padded"]) -> bool:
    """Whether ``model`` is run packed; where ``auto`` finds that it cannot be, the reason is logged.

    Raises:
        ConfigError: it is asked for, and cannot be.
    """
    if layout == "padded":
        return False
    reason = undrivable(model.module.config) or _mixes(model)
    if reason and layout == "packed":
        raise ConfigError(f"engine.layout is packed, and {model.source} cannot be: {reason}: use padded")
    if reason:
        logger.warning("%s is trained padded, not packed: %s", model.source, reason)
    return not reason


@torch.no_grad()
def _mixes(model: LanguageModel) -> str:
    """Whether a token's state in a tree is another than in its sequence alone, in words; empty where it is the same.

    Tried in the type of the weights, whatever the precision of the arithmetic: autocast would hide a difference.
    """
    random = np.random.default_rng(0)
    beginning = random.integers(model.vocabulary, size=SHARED, dtype=np.int32)
    sequences = [
        np.concatenate([beginning, random.integers(model.vocabulary, size=length - SHARED, dtype=np.int32)])
        for length in LENGTHS
    ]
    laid = row_of_trees([Tree(((0,), (1,)), SHARED)], sequences, model.device)
    together = model.states(laid)
    for row, sequence in enumerate(sequences):
        columns = torch.arange(len(sequence), device=model.device)
        found = together[laid.places(torch.full_like(columns, row), columns)]
        alone = model.states(side_by_side([sequence], model.device))
        if not torch.allclose(found, alone, rtol=0, atol=ROUNDING[alone.dtype] * float(alone.abs().max())):
            return "it does not keep packed sequences apart"
    return ""
