"""Two ways to run a model over a batch of rows that share prompts and come and go.

``SlabPath``: each row's cache is dense from column 0 in slabs written in place. For models whose every layer is plain
full attention. ``GenericPath``: left padding, a 2D mask and transformers' own cache, as ``generate`` uses them; rows
leave as they finish, and others enter once all have left. For every other causal language model.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from fettle.engine.local.cache import NextTokens, Prefix, Prompts, SlabCache, computing_dtype
from fettle.engine.local.roster import Roster

PREFILL_TOKENS = 8192
"""Most tokens in one forward pass over prompts, padding included, unless one prompt is longer."""
PADDING = 512
"""Most tokens of padding in it: a pass of its own costs about as much."""


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


@dataclass(frozen=True, slots=True)
class Held:
    """A prompt some of whose rows still wait."""

    prompt: int
    prefix: Prefix
    logits: Tensor  # [V]


class SlabPath:
    """Satisfies ``Path``. Prompts are right-padded and run without a mask, which is exact under causal attention.

    ``spare`` is the cache of an earlier path, which is used again if it suits: fresh memory costs a small model more
    than the arithmetic on it.
    """

    def __init__(
        self, model: PreTrainedModel, roster: Roster, token_budget: int, *, spare: SlabCache | None = None
    ) -> None:
        self._model = model
        self._device = model.device
        self._roster = roster
        self._capacity = int(roster.capacity.max())
        at_most = token_budget // self._capacity
        self._slots = min(len(roster), at_most)
        self._dtype = computing_dtype(model.device, model.dtype)
        if spare is None or not spare.suits(self._slots, at_most=at_most, dtype=self._dtype):
            spare = SlabCache(slots=self._slots, dtype=self._dtype)
        self.cache = spare
        self._lengths = np.zeros(0, dtype=np.int64)  # [B]
        self._held: Held | None = None

    def room(self, entered: int) -> int:
        """A quarter of the slots at a time: a pass over one prompt costs little less than a pass over many."""
        waiting, free = len(self._roster) - entered, self._slots - len(self._lengths)
        return min(waiting, free) if 4 * free >= min(4 * waiting, self._slots) else 0

    def enter(self, rows: NDArray[np.int64]) -> Tensor:
        """Each distinct prompt is run once, and copied to all its rows, those that enter later among them."""
        prompts = self._roster.prompt[rows]
        distinct, first, sources = np.unique(prompts, return_index=True, return_inverse=True)
        ends = len(self._lengths) + np.append(first, len(rows))  # rows of one prompt stand side by side
        slots = {prompt: slice(*ends[place : place + 2].tolist()) for place, prompt in enumerate(distinct.tolist())}
        self._lengths = np.concatenate([self._lengths, self._roster.prompt_lengths[prompts]])
        logits: dict[int, Tensor] = {}
        if self._held is not None:
            self.cache.paste(self._held.prefix, slots[self._held.prompt])
            logits[self._held.prompt] = self._held.logits
        fresh = [prompt for prompt in slots if prompt not in logits]
        for group in prefill_groups([len(self._roster.prompts[prompt]) for prompt in fresh]):
            logits |= self._run([fresh[place] for place in group], slots)
        self._hold(rows, logits)
        return torch.stack([logits[prompt] for prompt in slots])[self._tensor(sources)]

    def step(self, tokens: NDArray[np.int64]) -> Tensor:
        """Rows of unlike length are told apart by an additive mask [B, 1, 1, L]."""
        columns, width = self._tensor(self._lengths), int(self._lengths.max()) + 1
        mask = None
        if self._lengths.min() + 1 < width:
            beyond = torch.arange(width, device=self._device) > columns[:, None]
            mask = torch.zeros(beyond.shape, dtype=self._dtype, device=self._device).masked_fill_(beyond, float("-inf"))
            mask = mask[:, None, None]
        writing = NextTokens(torch.arange(len(columns), device=self._device), columns, width)
        logits: Tensor = self._model(
            input_ids=self._tensor(tokens)[:, None],
            attention_mask=mask,
            position_ids=columns[:, None],
            past_key_values=self.cache.write(writing, columns=width, capacity=self._capacity),
            use_cache=True,
        ).logits
        self._lengths = self._lengths + 1
        return logits[:, -1]

    def keep(self, order: NDArray[np.int64]) -> None:
        """Rows that change places are copied."""
        for place in np.flatnonzero(order != np.arange(len(order))).tolist():
            self.cache.move(int(order[place]), place, int(self._lengths[order[place]]))
        self._lengths = self._lengths[order]

    def _run(self, group: list[int], slots: dict[int, slice]) -> dict[int, Tensor]:
        """Logits [V] by prompt, after one pass over the prompts of ``group`` that starts their slots."""
        tokens = [self._roster.prompts[prompt] for prompt in group]
        lengths = [len(prompt) for prompt in tokens]
        ids = np.empty((len(group), max(lengths)), dtype=np.int64)
        for row, prompt in zip(ids, tokens, strict=True):
            row[: len(prompt)], row[len(prompt) :] = prompt, prompt[-1]  # any token will do as padding
        writing = Prompts([slots[prompt] for prompt in group], lengths)
        logits = self._model(
            input_ids=self._tensor(ids),
            past_key_values=self.cache.write(writing, columns=ids.shape[1], capacity=self._capacity),
            use_cache=True,
            logits_to_keep=self._tensor(np.array(lengths)[:, None] - 1),
        ).logits  # [P, 1, V]
        return dict(zip(group, logits[:, 0], strict=True))

    def _hold(self, rows: NDArray[np.int64], logits: dict[int, Tensor]) -> None:
        """Keep the last prompt aside while some of its rows have not entered."""
        prompt, following = int(self._roster.prompt[rows[-1]]), int(rows[-1]) + 1
        if following == len(self._roster) or self._roster.prompt[following] != prompt:
            self._held = None
        elif self._held is None or self._held.prompt != prompt:
            prefix = self.cache.prefix(len(self._lengths) - 1, len(self._roster.prompts[prompt]))
            self._held = Held(prompt, prefix, logits[prompt].clone())

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


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


def prefill_groups(lengths: Sequence[int]) -> list[list[int]]:
    """Prompts, by place, that share a forward pass: of like length, so that little of it is padding."""
    groups: list[list[int]] = []
    longest = padding = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        padding += longest - lengths[place]
        if not groups or padding > PADDING or (len(groups[-1]) + 1) * longest > PREFILL_TOKENS:
            groups.append([])
            longest, padding = lengths[place], 0
        groups[-1].append(place)
    return groups


def closed_up(finished: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of the unfinished rows, those from the end in the gaps, so that few change places.

    >>> closed_up(np.array([False, True, False, True, False]))
    array([0, 4, 2])
    """
    left = len(finished) - int(finished.sum())
    order = np.arange(left)
    order[finished[:left]] = left + np.flatnonzero(~finished[left:])
    return order
