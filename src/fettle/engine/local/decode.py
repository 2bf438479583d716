"""The decode loop: requests in, completions out.

Each distinct prompt is run once and shared by its rows; finished rows leave the batch and waiting ones enter while
the token budget has room. A row's draws depend on its seed and index alone; its logits may differ in their last bits
with what else is in the batch, because matrix products of unlike size round differently.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from fettle.engine.base import SampleRequest
from fettle.engine.local.attention import UnsuitedError, undrivable
from fettle.engine.local.batch import Batch
from fettle.engine.local.cache import Pool, Structure, structure
from fettle.engine.local.few import FewPath, Prepared, few, one_thread, prepared, small
from fettle.engine.local.forward import DrivenForward, Forward, Voice
from fettle.engine.local.kept import KEPT_BYTES, Kept
from fettle.engine.local.lora import Adapter
from fettle.engine.local.memory import enough_memory
from fettle.engine.local.paths import GenericPath, Path, closed_up
from fettle.engine.local.probe import difference
from fettle.engine.local.roster import Roster, roster
from fettle.engine.local.shared import Memory, SharedPath, beyond
from fettle.engine.local.stopping import Pieces
from fettle.errors import EngineError, ModelError
from fettle.types import Completion

logger = logging.getLogger(__name__)

SPARE_BYTES = 1 << 28
"""Most memory that nobody uses from one call to the next."""

LESS = "lower engine.sample_tokens, and sequences that do not fit wait"
"""What helps where the cache does not fit."""

Way = Literal["lean", "driven", "generic"]
Hosting = Callable[[Voice], AbstractContextManager[object]]
"""The model's own modules with the weights of a voice in them."""
Lean = Callable[[Mapping[str, Tensor] | None], Forward | None]
"""A forward pass of its own for the model, with values in the place of its parameters; None where there is none."""


class Decoder:
    """Samples from one model, whose weights may change between calls and never during one.

    Args:
        model: any transformers causal LM in eval mode, on any device.
        lean: its arithmetic without transformers' modules.
        hosting: how a voice is run by transformers' modules.
        end_token_ids: tokens that end every completion.
        decode_text: tokens to text, for stop strings.
        token_budget: most tokens that the cache holds at once (``engine.sample_tokens``).
        context: longest sequence, in tokens, prompt and completion together.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        lean: Lean,
        hosting: Hosting,
        end_token_ids: frozenset[int],
        decode_text: Callable[[Sequence[int]], str],
        token_budget: int,
        context: int,
    ) -> None:
        self._model = model
        self._lean = lean
        self._hosting = hosting
        self._end_token_ids = end_token_ids
        self._pieces = Pieces(decode_text)
        self._token_budget = token_budget
        self._context = context
        self._memory = Memory(Pool(SPARE_BYTES), Kept(KEPT_BYTES))
        self._told: set[str] = set()
        self._prepared: Prepared | None = None
        self._drawing = threading.Lock()

    @property
    def path(self) -> Way:
        """How this model is run, found out by trying at first use.

        Raises:
            ModelError: no way gives what plain forward passes give.
        """
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[Way, Structure | None]:
        """The way, and on the shared path what a token leaves in the cache."""
        kind = type(self._model).__name__
        lean = self._lean(None)
        if lean is not None:
            reason = self._unlike(lean)
            if not reason:
                return "lean", structure(lean, self._model.device)
            logger.warning("%s is sampled through transformers' modules, which is slower: %s", kind, reason)
        driven = DrivenForward(self._model)
        reason = undrivable(self._model.config) or self._unlike(driven)
        if reason:
            self._tell_generic(reason)
            return "generic", None
        with self._hosting(Voice(0)):
            return "driven", structure(driven, self._model.device)

    @torch.no_grad()
    def complete(self, requests: Sequence[SampleRequest], voices: Sequence[Voice]) -> list[list[Completion]]:
        """For each request its ``n`` completions, in order; ``voices[i]`` is whose weights request ``i`` is drawn from.

        Voices have the same ``tensors``, and may have unlike adapters. A drawn end or stop token is the last of its
        completion's tokens, and so is the token that completes a stop string. Log-probabilities are those of the
        distribution that was drawn from; greedy rows: see ``drawing``.

        Raises:
            ModelError: a prompt does not fit the model, the logits are not finite, or the model cannot use a cache.
            ConfigError: a stop string is empty, or one completion alone may outgrow the token budget.
            EngineError: there is not enough memory, or the model's layers were replaced since it was first sampled.
        """
        distinct = {voice.whose: voice for voice in voices}
        wanted = self.roster(requests, voices)
        if not len(wanted):
            return [[] for _ in requests]
        parts = self._parts(wanted, voices)
        if len(parts) > 1:
            return self._part_by_part(requests, voices, parts)
        try:
            with self._drawing, enough_memory("to sample", LESS):
                return self._completed(wanted, list(distinct.values()))
        except BaseException:
            self._memory.pool.clear()  # whatever went wrong leaves no numbers behind that are none
            raise

    def roster(self, requests: Sequence[SampleRequest], voices: Sequence[Voice]) -> Roster:
        """The rows of ``requests``, which are refused here if they cannot be drawn; see :meth:`complete`."""
        numbers = {whose: number for number, whose in enumerate(dict.fromkeys(voice.whose for voice in voices))}
        return roster(
            requests,
            [numbers[voice.whose] for voice in voices],
            vocabulary=self._model.get_input_embeddings().num_embeddings,
            context=self._context,
            token_budget=self._token_budget,
            end_token_ids=self._end_token_ids,
        )

    def forget_weights(self) -> None:
        """Let go of what is read of the model's weights, which are about to be others."""
        self._prepared = None

    def forget(self, owner: Hashable) -> None:
        """Let go of the conversations that are kept for this owner, once no call is at work."""
        with self._drawing:
            self._memory.kept.forget(owner)
            self._prepared = None

    def _parts(self, wanted: Roster, voices: Sequence[Voice]) -> list[list[int]]:
        """Places of the requests that are run together: those that a layer may see too little of apart from others.

        Where transformers' modules are used, each voice is apart as well: they hold the weights of one at a time.
        """
        way, like = self._found
        outgrowing = np.zeros(len(voices), dtype=np.bool_)
        if like is not None and like.window is not None:
            outgrowing[wanted.request[wanted.capacity > like.window]] = True
        parts: dict[tuple[bool, Hashable], list[int]] = {}
        for place, (voice, outgrows) in enumerate(zip(voices, outgrowing.tolist(), strict=True)):
            whose = None if way == "lean" and not outgrows else voice.whose
            parts.setdefault((outgrows, whose), []).append(place)
        return list(parts.values())

    def _part_by_part(
        self, requests: Sequence[SampleRequest], voices: Sequence[Voice], parts: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        found: list[list[Completion]] = [[] for _ in requests]
        for part in parts:
            drawn = self.complete([requests[place] for place in part], [voices[place] for place in part])
            for place, completions in zip(part, drawn, strict=True):
                found[place] = completions
        return found

    def _completed(self, wanted: Roster, voices: Sequence[Voice]) -> list[list[Completion]]:
        way, like = self._way(wanted)
        if like is None:
            versions = [voice.version for voice in voices]
            with self._hosting(voices[0]):
                return self._ran(wanted, GenericPath(self._model, wanted, self._token_budget)).completions(versions)
        self._memory.kept.outgrown(voices)
        if way == "lean":
            known = self._known(voices)
            if known is not None:
                voices = [known.voice]
            forward = self._lean_of(voices[0]) if known is None else known.forward
            return self._shared(wanted, forward, like, voices, [voice.adapter for voice in voices])
        with self._hosting(voices[0]):
            return self._shared(wanted, DrivenForward(self._model), like, voices, [None])

    def _known(self, voices: Sequence[Voice]) -> Prepared | None:
        """What a few rows were last drawn from, where it is what these are drawn from."""
        known = self._prepared
        return known if known is not None and [voice.whose for voice in voices] == [known.voice.whose] else None

    def _lean_of(self, voice: Voice) -> Forward:
        lean = self._lean(voice.tensors)
        if lean is None:
            raise EngineError(
                f"{type(self._model).__name__} was changed since it was first sampled: load it again into a new engine"
            )
        return lean

    def _shared(
        self,
        wanted: Roster,
        forward: Forward,
        like: Structure,
        voices: Sequence[Voice],
        adapters: Sequence[Adapter | None],
    ) -> list[list[Completion]]:
        memory = self._memory
        prompts = SharedPath(forward, like, wanted, self._token_budget, voices=voices, adapters=adapters, memory=memory)
        if len(voices) == 1 and few(forward, wanted, self._token_budget):
            with one_thread():
                known = self._known(voices) or prepared(voices[0], forward)
                copied = voices[0].adapter is not None  # whole weights may be changed where they are
                self._prepared = known if copied and voices[0].owner is not None else None
                batch = self._ran(wanted, FewPath(prompts, wanted, known.weights))
        else:
            batch = self._ran(wanted, prompts)
        prompts.release()
        found = batch.completions([voice.version for voice in voices])
        for row, stretch in sorted(prompts.finished.items()):
            drawn = found[wanted.request[row]][wanted.index[row]].tokens
            prompt = int(wanted.prompt[row])
            tokens = np.array([*wanted.prompts[prompt], *drawn[:-1]])  # the last was drawn, and not yet run
            memory.kept.add(voices[wanted.voice[prompt]], tokens, stretch)
        return found

    def _ran(self, wanted: Roster, path: Path) -> Batch:
        device = self._model.device
        # The draws need float64, which Apple's GPUs lack.
        batch = Batch(wanted, self._pieces, torch.device("cpu") if device.type == "mps" else device)
        entered = 0
        while entered < len(wanted) or len(batch):
            since = 0
            if room := path.room(entered):
                rows = np.arange(entered, entered + room)
                since, entered = len(batch), entered + room
                batch.enter(rows)
                logits = path.enter(rows)
            else:
                logits = path.step(batch.tokens)
            finished = batch.extend(logits, since=since)
            if finished.any():
                order = closed_up(finished)
                path.keep(order)
                batch.keep(order)
        return batch

    def _way(self, wanted: Roster) -> tuple[Way, Structure | None]:
        """How these rows are run: generically where they are longer than a layer sees."""
        way, like = self._found
        if like is not None and (reason := beyond(like, wanted)):
            self._tell_generic(reason)
            return "generic", None
        return way, like

    def _unlike(self, forward: Forward) -> str:
        """How the shared path over this forward, or that of a few rows, differs from plain forward passes."""

        def kind(trial: Roster, token_budget: int) -> SharedPath:
            like, memory = structure(forward, self._model.device), Memory(Pool(0), Kept(0))
            if reason := beyond(like, trial):
                raise UnsuitedError(reason)
            return SharedPath(forward, like, trial, token_budget, voices=[Voice(0)], adapters=[None], memory=memory)

        def of_few(trial: Roster, token_budget: int) -> Path:
            prompts = kind(trial, token_budget)
            return FewPath(prompts, trial, prepared(Voice(0), forward).weights) if small(forward) else prompts

        return difference(kind, self._model) or (difference(of_few, self._model) if small(forward) else "")

    def _tell_generic(self, reason: str) -> None:
        """Once for each reason.

        Raises:
            ModelError: this way does not give what plain forward passes give either.
        """
        if reason in self._told:
            return
        self._told.add(reason)
        kind = type(self._model).__name__
        logger.warning("%s is sampled on the generic path, which is slower: %s", kind, reason)
        with self._hosting(Voice(0)):
            wrong = difference(partial(GenericPath, self._model), self._model)
        if wrong:
            raise ModelError(f"{kind} cannot be sampled: with a cache {wrong}; use another architecture")
