"""The roster of one sampling call: every row, what it continues, how it is drawn, and what ends it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local.drawing import SettingsTable
from fettle.errors import ConfigError, ContextError, ModelError

NO_TOKEN = -1
"""Fills up rows of ``stop_ids``; never drawn."""


@dataclass(frozen=True, slots=True)
class Roster:
    """The N rows of R requests, those of one prompt side by side, short prompts first; arrays are over rows."""

    requests: Sequence[SampleRequest]
    prompts: list[tuple[int, ...]]
    """The distinct prompts of each voice."""
    voice: NDArray[np.int64]
    """Of each of ``prompts``, by its number."""
    prompt: NDArray[np.int64]
    """Index into ``prompts``."""
    request: NDArray[np.int64]
    index: NDArray[np.int64]
    """Which completion of its request it is."""
    limit: NDArray[np.int64]
    """Most tokens it may draw."""
    stop_ids: NDArray[np.int64]  # [R, S], of the requests
    settings: SettingsTable

    def __len__(self) -> int:
        return len(self.request)

    @property
    def capacity(self) -> NDArray[np.int64]:
        """Tokens of each row's prompt and longest completion together."""
        return self.prompt_lengths[self.prompt] + self.limit

    @property
    def prompt_lengths(self) -> NDArray[np.int64]:
        """Of the distinct prompts."""
        return np.array([len(prompt) for prompt in self.prompts], dtype=np.int64)


def roster(
    requests: Sequence[SampleRequest],
    voices: Sequence[int],
    *,
    vocabulary: int,
    context: int,
    token_budget: int,
    end_token_ids: frozenset[int],
) -> Roster:
    """The rows of ``requests``, the i-th of which is drawn by the voice of number ``voices[i]``.

    Raises:
        ModelError: a prompt is empty, or holds a token id outside the vocabulary.
        ContextError: a prompt fills the context.
        ConfigError: a stop string is empty, or one row alone does not fit into ``token_budget``.
    """
    for at, request in enumerate(requests):
        _check(request, f"request {at}", vocabulary=vocabulary, context=context)
    keys = [(voice, tuple(request.prompt)) for voice, request in zip(voices, requests, strict=True)]
    distinct = sorted(dict.fromkeys(keys), key=lambda key: len(key[1]))
    places = {key: place for place, key in enumerate(distinct)}
    prompt_of = np.array([places[key] for key in keys], dtype=np.int64)
    order = np.argsort(prompt_of, kind="stable")
    counts = np.array([request.n for request in requests], dtype=np.int64)[order]
    row_request = np.repeat(order, counts)
    limits = np.array([min(r.params.max_tokens, context - len(r.prompt)) for r in requests], dtype=np.int64)
    made = Roster(
        requests=requests,
        prompts=[prompt for _, prompt in distinct],
        voice=np.array([voice for voice, _ in distinct], dtype=np.int64),
        prompt=prompt_of[row_request],
        request=row_request,
        index=np.concatenate([np.arange(count) for count in counts]) if len(requests) else row_request,
        limit=limits[row_request],
        stop_ids=_padded([_stop_ids(request.params, end_token_ids) for request in requests]),
        settings=SettingsTable([request.params for request in requests], vocabulary),
    )
    if len(made) and made.capacity.max() > token_budget:
        row = int(made.capacity.argmax())
        raise ConfigError(
            f"request {made.request[row]} needs room for {made.capacity[row]} tokens, prompt and max_tokens together, "
            f"and engine.sample_tokens is {token_budget}: raise engine.sample_tokens, or lower max_tokens"
        )
    return made


def _check(request: SampleRequest, name: str, *, vocabulary: int, context: int) -> None:
    prompt = request.prompt
    if request.n < 0:
        raise ConfigError(f"{name} asks for {request.n} completions: a number from 0 up is needed")
    if not len(prompt):
        raise ModelError(f"the prompt of {name} is empty, and a model needs a token to continue: give it at least one")
    if len(prompt) >= context:
        raise ContextError(
            f"the prompt of {name} has {len(prompt)} tokens, which leaves no room for more in a context of {context}: "
            "shorten it"
        )
    for token in (min(prompt), max(prompt)):
        if not 0 <= token < vocabulary:
            raise ModelError(
                f"the prompt of {name} holds token id {token}, and the model's vocabulary is 0 to {vocabulary - 1}"
            )
    if "" in request.params.stop:
        raise ConfigError(f"a stop string of {name} is empty, and every text contains that: leave it out")


def _stop_ids(params: SamplingParams, end_token_ids: frozenset[int]) -> frozenset[int]:
    return (end_token_ids if params.end_tokens else frozenset()) | set(params.stop_token_ids)


def _padded(sets: Sequence[frozenset[int]]) -> NDArray[np.int64]:
    table = np.full((len(sets), max(map(len, sets), default=0)), NO_TOKEN, dtype=np.int64)
    for row, members in zip(table, sets, strict=True):
        row[: len(members)] = sorted(members)
    return table
