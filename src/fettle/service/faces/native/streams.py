"""Completions as they are drawn: server-sent events whose texts, put together, are the text of the whole."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from fettle.broker import Promise
from fettle.engine.base import SampleRequest
from fettle.errors import FettleError, StorageError
from fettle.service.models import Model
from fettle.service.wire import error_tree
from fettle.types import Completion

PARTIAL = "\N{REPLACEMENT CHARACTER}"
"""What the first bytes of a character are decoded to."""
LONGEST_CHARACTER = 4
"""Tokens: a character has no more bytes than that, and a token with text at least one."""


@dataclass(frozen=True, slots=True)
class _Heard:
    index: int
    token: int
    logprob: float


async def events(
    draw: Callable[[Sequence[SampleRequest]], Promise], request: SampleRequest, model: Model
) -> AsyncIterator[bytes]:
    """An event a token, and one at the end. Whoever stops listening stops the drawing."""
    loop, heard = asyncio.get_running_loop(), asyncio.Queue[_Heard | None]()
    listening = True

    def watch(index: int, token: int, logprob: float) -> bool:
        loop.call_soon_threadsafe(heard.put_nowait, _Heard(index, token, logprob))
        return listening

    try:
        promise = draw([replace(request, watch=watch)])
    except FettleError as error:
        yield _event(error_tree(error))
        return
    promise.when_done(lambda _: loop.call_soon(heard.put_nowait, None))
    tails: defaultdict[int, _Tail] = defaultdict(lambda: _Tail(model))
    try:
        while (one := await heard.get()) is not None:
            text = tails[one.index].added(one.token)
            yield _event({"index": one.index, "token_id": one.token, "logprob": one.logprob, "token": text})
        for event in _last(promise, tails):
            yield event
    finally:
        listening = False
        with suppress(StorageError):
            promise.cancel()
        promise.acknowledge()


def _last(promise: Promise, tails: "defaultdict[int, _Tail]") -> list[bytes]:
    """What is said once all is drawn."""
    if isinstance(promise.answer, FettleError):
        return [_event(error_tree(promise.answer))]
    drawn: list[Completion] = promise.answer
    said = [
        {
            "index": index,
            "token": tails[index].rest(),
            "is_finished": True,
            "stop_reason": completion.stop_reason,
            "policy_version": completion.policy_version,
            "num_tokens": len(completion.tokens),
        }
        for index, completion in enumerate(drawn)
    ]
    return [*map(_event, said), b"data: [DONE]\n\n"]


class _Tail:
    """What of a completion's text was not said yet."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tokens: list[int] = []
        self._sure, self._read = 0, 0
        """The first of the tokens that were said last, and the first that was not said."""
        self._said = 0

    def added(self, token: int) -> str:
        """What is sure of the text now that there is one more token."""
        self._tokens.append(token)
        # With those before it, since some decoders strip a space from the first token of a text.
        before, text = self._text(self._tokens[self._sure : self._read]), self._text(self._tokens[self._sure :])
        waiting = len(self._tokens) - self._read
        if text == before or (text.endswith(PARTIAL) and waiting < LONGEST_CHARACTER):
            return ""
        self._sure, self._read = self._read, len(self._tokens)
        self._said += len(text) - len(before)
        return text[len(before) :]

    def rest(self) -> str:
        """All that is left."""
        return self._text(self._tokens)[self._said :]

    def _text(self, tokens: Sequence[int]) -> str:
        return self._model.text_of(tokens, skip_special_tokens=True)


def _event(tree: Any) -> bytes:
    return b"data: " + json.dumps(tree, separators=(",", ":")).encode() + b"\n\n"
