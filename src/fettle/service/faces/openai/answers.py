"""Answers put together: whole, or as a stream of server-sent events that ends with ``[DONE]``."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from fettle.broker import Promise
from fettle.errors import FettleError, StorageError
from fettle.service.faces.openai.drawing import Overheard
from fettle.service.faces.openai.forms import Form, Json
from fettle.service.faces.openai.refusals import error_body
from fettle.types import Completion

DONE = b"data: [DONE]\n\n"


class Answer:
    """One answer: of which model and weights, in which form, to how many tokens of prompts."""

    def __init__(self, form: Form, *, model: str, fingerprint: str, prompt_tokens: int) -> None:
        self._form = form
        self._prompt_tokens = prompt_tokens
        self._head = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, completions: Sequence[Completion]) -> Json:
        """All choices at once."""
        choices = []
        for place, completion in enumerate(completions):
            choice = self._form.choice(place)
            choices.append(self._form.whole(place, choice, choice.ended(completion), completion))
        return {**self._head, "object": self._form.kind, "choices": choices, "usage": self._usage(completions)}

    async def pieces(
        self, promise: Promise, overheard: Overheard, *, n: int, count: int, usage: bool
    ) -> AsyncIterator[bytes]:
        """The choices as events, text by text as it becomes certain; ``count`` of them, ``n`` of each prompt."""
        choices = [self._form.choice(place) for place in range(count)]
        try:
            for place in range(count):
                yield self._event([self._form.opening(place)], usage)
            async for heard in overheard.tokens(promise):
                place = heard.request * n + heard.member
                if text := choices[place].add(heard.token):
                    yield self._event([self._form.piece(place, text)], usage)
            completions: list[Completion] = await promise.result()
            for place, (choice, completion) in enumerate(zip(choices, completions, strict=True)):
                for piece in self._form.closing(place, choice.ended(completion), completion):
                    yield self._event([piece], usage)
            if usage:
                yield self._event([], usage, self._usage(completions))
            yield DONE
        except FettleError as error:
            yield _event(error_body(error))
        finally:  # also where the caller has gone away
            overheard.leave()
            with suppress(StorageError):
                promise.cancel()
            promise.acknowledge()

    def _event(self, choices: list[Json], usage: bool, used: Json | None = None) -> bytes:
        said = {**self._head, "object": self._form.chunk_kind, "choices": choices}
        return _event({**said, "usage": used} if usage else said)

    def _usage(self, completions: Sequence[Completion]) -> Json:
        drawn = sum(len(completion.tokens) for completion in completions)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": drawn,
            "total_tokens": self._prompt_tokens + drawn,
        }


def _event(said: Any) -> bytes:
    return b"data: " + json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
