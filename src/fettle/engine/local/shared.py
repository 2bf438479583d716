"""The shared way to run rows: each prompt's keys and values are held once, and read by all rows that continue it.

For models whose attention we can bring ourselves and whose every layer attends to all that came before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.engine.local.bifurcated import PromptAttention, Seating, Segment, StepAttention
from fettle.engine.local.cache import Pool, Shelf, Slabs, Structure, shelved
from fettle.engine.local.forward import Carried, Forward, Voice
from fettle.engine.local.kept import Kept, Stretch
from fettle.engine.local.lora import Adapter
from fettle.engine.local.roster import Roster

PREFILL_TOKENS = 8192
"""Most tokens in one forward pass over prompts, unless one prompt is longer."""


@dataclass(slots=True)
class Memory:
    """What one call leaves to the next."""

    pool: Pool
    kept: Kept


@dataclass(slots=True)
class _Origin:
    """A prompt on a shelf, and what is kept of it."""

    shelf: Shelf
    place: int
    stretch: Stretch | None
    """Of its beginning; of all of it, once a row of it was kept."""
    whole: bool = False


class SharedPath:
    """Satisfies ``Path``. The rows of voice i carry ``adapters[i]``."""

    def __init__(
        self,
        forward: Forward,
        like: Structure,
        roster: Roster,
        token_budget: int,
        *,
        voices: Sequence[Voice],
        adapters: Sequence[Adapter | None],
        memory: Memory,
    ) -> None:
        self._forward = forward
        self._like = like
        self._roster = roster
        self._token_budget = token_budget
        self._voices = voices
        self._adapters = adapters
        self._memory = memory
        self._slabs = Slabs(like, memory.pool, limit=int(roster.limit.max()))
        self._rows = np.zeros(0, dtype=np.int64)  # [B] of the roster
        self._own = np.zeros(0, dtype=np.int64)  # [B], tokens in the slab
        self._shelves: list[Shelf] = []
        self._origins: dict[int, _Origin] = {}  # by prompt
        self._held: dict[int, Tensor] = {}  # logits [V] after the prompt some of whose rows wait
        self._seating: Seating | None = None
        self._carried: list[Carried] = []
        self._unfinished = np.bincount(roster.prompt, minlength=len(roster.prompts))  # rows of each prompt
        self._continues = np.array([request.params.continued for request in roster.requests])
        self._kept_bytes = 0
        self.finished: dict[int, Stretch] = {}
        """By row of the roster: what was computed for it, if its conversation is to be kept."""

    def room(self, entered: int) -> int:
        """As many as fit beside those there are, each at its longest, and their prompts, each once.

        A quarter of the batch at a time: a pass over one prompt costs little less than a pass over many.
        """
        roster, waiting = self._roster, len(self._roster) - entered
        if not waiting:
            return 0
        own = np.maximum.accumulate(roster.limit[entered:])
        if len(self._rows):
            own = np.maximum(own, roster.limit[self._rows].max())
        prompts = roster.prompt[entered:]
        fresh = np.diff(prompts, prepend=-1) != 0
        fresh[0] = int(prompts[0]) not in self._origins
        on_shelves = sum(shelf.tokens for shelf in self._shelves)
        tokens = on_shelves + np.cumsum(fresh * roster.prompt_lengths[prompts])
        rows = len(self._rows) + np.arange(1, waiting + 1)
        fitting = int((rows * own + tokens <= self._token_budget).sum())
        return fitting if 4 * fitting >= min(4 * waiting, len(self._rows) + fitting) else 0

    def enter(self, rows: NDArray[np.int64]) -> Tensor:
        """Each distinct prompt is run once, also for the rows that enter later; what was kept of it is not run."""
        prompts, sources = np.unique(self._roster.prompt[rows], return_inverse=True)
        fresh = [prompt for prompt in prompts.tolist() if prompt not in self._origins]
        logits = self._held | self._run(self._shelved(fresh))
        self._rows = np.concatenate([self._rows, rows])
        self._own = np.concatenate([self._own, np.zeros_like(rows)])
        self._seating = None
        last, following = int(prompts[-1]), int(rows[-1]) + 1
        waits = following < len(self._roster) and self._roster.prompt[following] == last
        self._held = {last: logits[last].clone()} if waits else {}
        return torch.stack([logits[prompt] for prompt in prompts.tolist()]).index_select(0, self._tensor(sources))

    def step(self, tokens: NDArray[np.int64]) -> Tensor:
        """Each row's own tokens are read beside its prompt."""
        self._slabs.fit(len(self._rows), int(self._own.max()) + 1)
        prompts = self._roster.prompt[self._rows]
        if self._seating is None:
            self._seating = Seating.of(prompts, self._shelves, self._like)
            self._carried = self._carrying(prompts, np.ones_like(prompts))
        positions = self._roster.prompt_lengths[prompts] + self._own
        attention = StepAttention(self._seating, self._slabs, self._own, self._like)
        logits = self._forward.logits(self._tensor(tokens), self._tensor(positions), attention, carried=self._carried)
        self._own = self._own + 1
        return logits

    def states(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values [layers, heads, L, size] of the prompt of each row of the batch."""
        for prompt in self._roster.prompt[self._rows].tolist():
            origin = self._origins[prompt]
            shelf, place = origin.shelf, origin.place
            own = slice(shelf.lengths[place])
            yield shelf.keys[:, place, own].transpose(1, 2), shelf.values[:, place, own].transpose(1, 2)

    def keep(self, order: NDArray[np.int64]) -> None:
        """Rows that change places are copied; a prompt goes with its last row."""
        gone = np.ones(len(self._rows), dtype=np.bool_)
        gone[order] = False
        left = np.flatnonzero(gone)
        for place in left[self._continues[self._roster.request[self._rows[left]]]].tolist():
            self._keep_for_later(place)
        prompts = self._roster.prompt[self._rows[left]]
        np.subtract.at(self._unfinished, prompts, 1)
        moved = np.flatnonzero(order != np.arange(len(order)))
        width = int(self._own[order[moved]].max(initial=0))
        if width:
            self._slabs.move(self._tensor(order[moved]), self._tensor(moved), width)
        self._rows, self._own = self._rows[order], self._own[order]
        self._seating = None
        if not self._unfinished[prompts].all():
            self._clear()

    def release(self) -> None:
        """Leave all memory to the next call; every row is finished."""
        self._slabs.release()

    def _shelved(self, fresh: list[int]) -> list[Segment]:
        """What is to be run of these prompts, which now have shelves, with what was kept of them on these."""
        lengths = [len(self._roster.prompts[prompt]) for prompt in fresh]
        segments = []
        for group in shelved(lengths):
            prompts = [fresh[place] for place in group]
            shelf = Shelf(prompts, [lengths[place] for place in group], self._like, self._memory.pool)
            self._shelves.append(shelf)
            for place, prompt in enumerate(prompts):
                tokens = np.array(self._roster.prompts[prompt])
                stretch = self._memory.kept.longest(self._voices[self._roster.voice[prompt]], tokens)
                past = 0 if stretch is None else shelf.put(place, stretch)
                self._origins[prompt] = _Origin(shelf, place, stretch)
                segments.append(Segment(prompt, shelf, place, past))
        return segments

    def _run(self, segments: list[Segment]) -> dict[int, Tensor]:
        """Logits [V] that follow each prompt."""
        found: dict[int, Tensor] = {}
        for group in passes([segment.new for segment in segments]):
            own = segments[group]
            tokens = [self._roster.prompts[segment.prompt][segment.past :] for segment in own]
            positions = [np.arange(segment.past, segment.past + segment.new) for segment in own]
            counts = np.array([segment.new for segment in own])
            prompts = np.array([segment.prompt for segment in own])
            logits = self._forward.logits(
                self._tensor(np.concatenate(tokens)),
                self._tensor(np.concatenate(positions)),
                PromptAttention(own, self._like),
                wanted=self._tensor(counts.cumsum() - 1),
                carried=self._carrying(prompts, counts),
            )
            found |= zip(prompts.tolist(), logits, strict=True)
        return found

    def _carrying(self, prompts: NDArray[np.int64], counts: NDArray[np.int64]) -> list[Carried]:
        """The adapters of the tokens of some sequences, which continue ``prompts`` and have ``counts`` of them."""
        if len(self._adapters) == 1:
            return [Carried(adapter, None) for adapter in self._adapters if adapter is not None]
        voice = np.repeat(self._roster.voice[prompts], counts)
        return [
            Carried(adapter, self._tensor(np.flatnonzero(voice == place)))
            for place, adapter in enumerate(self._adapters)
            if adapter is not None
        ]

    def _keep_for_later(self, place: int) -> None:
        """What was computed for a finished row whose conversation may go on."""
        row, own = int(self._rows[place]), int(self._own[place])
        origin = self._origins[int(self._roster.prompt[row])]
        if self._voices[self._roster.voice[self._roster.prompt[row]]].owner is None:
            return
        new = own if origin.whole else own + origin.shelf.lengths[origin.place]
        if self._kept_bytes + new * self._like.bytes_per_token > self._memory.kept.most_bytes:
            return
        self._kept_bytes += new * self._like.bytes_per_token
        if origin.stretch is None or not origin.whole:
            origin.stretch, origin.whole = origin.shelf.stretch(origin.place, origin.stretch), True
        self.finished[row] = self._slabs.stretch(place, own, origin.stretch) if own else origin.stretch

    def _clear(self) -> None:
        """Let go of prompts that have no rows left; a shelf is copied when half of it is empty."""
        self._origins = {prompt: origin for prompt, origin in self._origins.items() if self._unfinished[prompt]}
        remaining = []
        for shelf in self._shelves:
            live = [place for place, prompt in enumerate(shelf.prompts) if prompt in self._origins]
            if not live:
                shelf.release()
            elif 2 * len(live) <= len(shelf.prompts):
                smaller = shelf.only(live)
                for place, prompt in enumerate(smaller.prompts):
                    self._origins[prompt].shelf, self._origins[prompt].place = smaller, place
                remaining.append(smaller)
            else:
                remaining.append(shelf)
        self._shelves = remaining

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._like.device)


def beyond(like: Structure, roster: Roster) -> str:
    """How a layer sees too little of a row for this path, in words; empty where it sees all."""
    longest = int(roster.capacity.max())
    if like.window is None or longest <= like.window:
        return ""
    return f"one of its layers sees {like.window} tokens back, and sequences of {longest} are asked for"


def passes(lengths: Sequence[int]) -> list[slice]:
    """Prompts that follow each other in one forward pass."""
    found: list[slice] = []
    tokens = 0
    for place, length in enumerate(lengths):
        tokens += length
        if not found or tokens > PREFILL_TOKENS:
            found.append(slice(place, place))
            tokens = length
        found[-1] = slice(found[-1].start, place + 1)
    return found
