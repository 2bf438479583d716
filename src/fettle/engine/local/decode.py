"""The decode loop: requests in, completions out.

Each distinct prompt is run once and shared by its rows; finished rows leave the batch and waiting ones enter while
the token budget has room. A row's draws depend on its seed and index alone; its logits may differ in their last bits
with what else is in the batch, because matrix products of unlike size round differently.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from fettle.engine.base import SampleRequest
from fettle.engine.local.batch import Batch
from fettle.engine.local.cache import SlabCache
from fettle.engine.local.paths import GenericPath, Path, SlabPath, closed_up
from fettle.engine.local.probe import difference, unlike_layers
from fettle.engine.local.roster import Roster, roster
from fettle.engine.local.stopping import Pieces
from fettle.errors import ModelError
from fettle.types import Completion

logger = logging.getLogger(__name__)

SPARE_BYTES = 1 << 28
"""Largest cache that is kept from one call to the next."""


class Decoder:
    """Samples from one model, whose weights may change between calls and never during one.

    Args:
        model: any transformers causal LM in eval mode, on any device.
        end_token_ids: tokens that end every completion.
        decode_text: tokens to text, for stop strings.
        token_budget: most tokens that the cache holds at once (``engine.sample_tokens``).
        context: longest sequence, in tokens, prompt and completion together.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        end_token_ids: frozenset[int],
        decode_text: Callable[[Sequence[int]], str],
        token_budget: int,
        context: int,
    ) -> None:
        self._model = model
        self._end_token_ids = end_token_ids
        self._pieces = Pieces(decode_text)
        self._token_budget = token_budget
        self._context = context
        self._spare: SlabCache | None = None

    @cached_property
    def path(self) -> Literal["slab", "generic"]:
        """How this model is run, found out by trying at first use.

        Raises:
            ModelError: neither way gives what plain forward passes give.
        """
        reason = unlike_layers(self._model) or difference(SlabPath, self._model)
        if not reason:
            return "slab"
        kind = type(self._model).__name__
        logger.info("%s is sampled on the generic path: %s", kind, reason)
        if reason := difference(GenericPath, self._model):
            raise ModelError(f"{kind} cannot be sampled: with a cache {reason}; use another architecture")
        return "generic"

    @torch.no_grad()
    def complete(self, requests: Sequence[SampleRequest], *, version: int) -> list[list[Completion]]:
        """For each request its ``n`` completions, in order.

        A drawn end or stop token is the last of its completion's tokens, and so is the token that completes a stop
        string. Log-probabilities are those of the distribution that was drawn from; greedy rows: see ``drawing``.

        Raises:
            ModelError: a prompt does not fit the model, the logits are not finite, or the model cannot use a cache.
            ConfigError: a stop string is empty, or one completion alone may outgrow the token budget.
        """
        wanted = roster(
            requests,
            vocabulary=self._model.get_input_embeddings().num_embeddings,
            context=self._context,
            token_budget=self._token_budget,
            end_token_ids=self._end_token_ids,
        )
        if not len(wanted):
            return [[] for _ in requests]
        if self.path == "generic":
            return self._ran(wanted, GenericPath(self._model, wanted, self._token_budget)).completions(version)
        path = SlabPath(self._model, wanted, self._token_budget, spare=self._spare)
        self._spare = None  # whatever goes wrong now leaves no numbers behind that are none
        found = self._ran(wanted, path).completions(version)
        self._spare = path.cache if path.cache.nbytes <= SPARE_BYTES else None
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
