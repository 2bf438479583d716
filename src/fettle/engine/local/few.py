"""The way to run a few rows of a small model: all at once, each with its prompt's keys and values to itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.engine.local.forward import Forward, Voice
from fettle.engine.local.lean import LeanForward
from fettle.engine.local.lean_few import FewForward, FewWeights, suits
from fettle.engine.local.roster import Roster
from fettle.engine.local.shared import SharedPath

FEW = 32
"""Most rows."""
TOKENS = 8192
"""Most that they hold together, at their longest, each with a prompt of its own."""
NUMBERS = 1 << 22
"""Most weights, of which a copy is made."""
PRODUCTS = 1 << 26
"""Most multiplications in a step: with more, a second thread gains more than fewer calls do."""


class FewPath:
    """Satisfies ``Path``. Prompts are run by another path, which lets go of them at once."""

    def __init__(self, prompts: SharedPath, roster: Roster, weights: FewWeights) -> None:
        self._prompts = prompts
        self._lengths = roster.prompt_lengths[roster.prompt]
        self._column = int(self._lengths.max())
        columns = self._column + int(roster.limit.max())
        self._steps = FewForward(weights, self._column - self._lengths, columns)

    def room(self, entered: int) -> int:
        """All at once."""
        return 0 if entered else len(self._lengths)

    def enter(self, rows: NDArray[np.int64]) -> Tensor:
        """Keys and values of their prompts are copied for each."""
        logits = self._prompts.enter(rows)
        end = self._column
        for row, (keys, values) in enumerate(self._prompts.states()):  # [layers, heads, L, size]
            own = slice(end - keys.shape[2], end)
            self._steps.keys[:, row, :, own], self._steps.values[:, row, :, own] = keys.numpy(), values.numpy()
        self._prompts.keep(np.zeros(0, dtype=np.int64))
        return logits

    def step(self, tokens: NDArray[np.int64]) -> Tensor:
        """Into the next column, for all of them."""
        logits = self._steps.logits(tokens, self._column)
        self._column += 1
        return logits

    def keep(self, order: NDArray[np.int64]) -> None:
        """Rows that change places are copied."""
        self._steps.keep(order, self._column)


class Prepared(NamedTuple):
    """A voice, and how it is run."""

    voice: Voice
    forward: LeanForward
    weights: FewWeights


def prepared(voice: Voice, forward: LeanForward) -> Prepared:
    """A small model's forward with what a few rows of it need."""
    updates = None if voice.adapter is None else forward.updates(voice.adapter)
    return Prepared(voice, forward, FewWeights(forward, updates))


def small(forward: Forward) -> TypeGuard[LeanForward]:
    """Whether the model is one of which a few rows are run this way."""
    return isinstance(forward, LeanForward) and forward.numbers <= NUMBERS and suits(forward)


def few(forward: Forward, roster: Roster, token_budget: int) -> TypeGuard[LeanForward]:
    """Whether the rows are so few, and the model so small, that they are run this way."""
    count = len(roster)
    if count > FEW or not small(forward) or count * forward.numbers > PRODUCTS:
        return False
    held = count * (int(roster.prompt_lengths.max()) + int(roster.limit.max()))
    continued = any(request.params.continued for request in roster.requests)
    return held <= min(TOKENS, token_budget) and not continued


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's operators on this thread alone: to wake another costs more than such small ones take."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
