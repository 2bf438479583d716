"""Running a model over a batch of rows that share prompts and come and go: what each way offers, and the generic one.

``GenericPath``: left padding, a 2D mask and transformers' own cache, as ``generate`` uses them; rows leave as they
finish, and others enter once all have left. For every causal language model that the shared path is none for.
"""

import inspect
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from fettle.engine.local.roster import Roster


class Path(Protocol):
    """Runs the rows of one roster, B of them at a time."""

    def room(self, entered: int) -> int:
        """How many more of the roster's rows enter now, when ``entered`` have so far."""
        ...

    def enter(self, rows: NDArray[np.int64]) -> Tensor:
        """Append the roster's next rows to the batch; logits [A, V] that follow their prompts."""
        ...

    def step(self, tokens: NDArray[np.int64]) -> Tensor:
        """Append a token to each row of the batch; logits [B, V] that follow."""
        ...

    def keep(self, order: NDArray[np.int64]) -> None:
        """Go on with the rows at these places of the batch, in this order, which ``closed_up`` gave."""
        ...


class GenericPath:
    """Satisfies ``Path``. A wave of rows enters together; identical prompts are run once in each wave."""

    def __init__(self, model: PreTrainedModel, roster: Roster, token_budget: int) -> None:
        self._model = model
        self._device = model.device
        self._roster = roster
        self._token_budget = token_budget
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._cache_name = "cache_params" if "cache_params" in accepted else "past_key_values"
        self._lengths = torch.zeros(0, dtype=torch.long)  # [B]
        self._mask = torch.zeros(0, 0, dtype=torch.long)  # [B, columns], 1 where there is a token
        self._cache = DynamicCache(config=model.config)

    def room(self, entered: int) -> int:
        """A whole wave, once the rows of the last have left."""
        if len(self._lengths):
            return 0
        prompts = self._roster.prompt_lengths[self._roster.prompt[entered:]]
        widths = np.maximum.accumulate(prompts) + np.maximum.accumulate(self._roster.limit[entered:])
        return int((widths * np.arange(1, len(widths) + 1) <= self._token_budget).sum())

    def enter(self, rows: NDArray[np.int64]) -> Tensor:
        """One pass over the wave's distinct prompts, left-padded."""
        distinct, sources = np.unique(self._roster.prompt[rows], return_inverse=True)
        tokens = [self._roster.prompts[prompt] for prompt in distinct.tolist()]
        ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, real, prompt in zip(ids, mask, tokens, strict=True):
            row[-len(prompt) :], real[-len(prompt) :] = prompt, 1
        self._cache = DynamicCache(config=self._model.config)
        self._mask = self._tensor(mask)
        positions = (self._mask.cumsum(-1) - 1).clamp_(min=0)
        logits = self._run(self._tensor(ids), positions, first=True)
        self._lengths = self._mask.sum(-1)
        places = self._tensor(sources)
        self._select(places)
        return logits[places]

    def step(self, tokens: NDArray[np.int64]) -> Tensor:
        """The mask grows by a column."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        logits = self._run(self._tensor(tokens)[:, None], self._lengths[:, None], first=False)
        self._lengths = self._lengths + 1
        return logits

    def keep(self, order: NDArray[np.int64]) -> None:
        """Rows leave the cache."""
        self._select(self._tensor(order))

    def _run(self, ids: Tensor, positions: Tensor, *, first: bool) -> Tensor:
        inputs = self._model.prepare_inputs_for_generation(
            ids,
            attention_mask=self._mask,
            use_cache=True,
            is_first_iteration=first,
            logits_to_keep=1,
            **{self._cache_name: self._cache},
            **({"position_ids": positions} if self._takes_positions else {}),
        )
        logits: Tensor = self._model(**inputs).logits
        return logits[:, -1]

    def _select(self, places: Tensor) -> None:
        self._lengths, self._mask = self._lengths[places], self._mask[places]
        self._cache.reorder_cache(places)

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def closed_up(finished: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of the unfinished rows, those from the end in the gaps, so that few change places.

    >>> closed_up(np.array([False, True, False, True, False]))
    array([0, 4, 2])
    """
    left = len(finished) - int(finished.sum())
    order = np.arange(left)
    order[finished[:left]] = left + np.flatnonzero(~finished[left:])
    return order
