"""Log-probabilities as the OpenAI API tells them, in the forms of completions and of chats."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fettle.service.faces.openai.speaker import Speaker
from fettle.types import Completion, PromptReading


@dataclass(frozen=True, slots=True)
class Told:
    """One token, its log-probability under the model's own distribution, and the likeliest ones at its place."""

    token: int
    logprob: float | None
    """None for the first token of a text."""
    top: Sequence[tuple[int, float]]


def drawn(completion: Completion) -> list[Told]:
    """The tokens of a completion that was asked for with its log-probabilities."""
    logprobs = completion.untempered_logprobs or completion.logprobs
    top = completion.top or [[] for _ in completion.tokens]
    return [Told(*row) for row in zip(completion.tokens, logprobs, top, strict=True)]


def read(tokens: Sequence[int], reading: PromptReading) -> list[Told]:
    """The tokens of a prompt."""
    told = []
    for place, token in enumerate(tokens):
        logprob = float(reading.logprobs[place])
        if math.isnan(logprob):
            told.append(Told(token, None, []))
            continue
        ids, values = reading.top_tokens[place].tolist(), reading.top_logprobs[place].tolist()
        told.append(Told(token, logprob, list(zip(ids, values, strict=True))))
    return told


def within(told: Sequence[Told], speaker: Speaker, text: str) -> list[Told]:
    """Those that lie within ``text``; of a token that goes on behind its end nothing is told."""
    ends = [*islice(_offsets(told, speaker), 1, None), len(text) + 1]
    return [each for each, end in zip(told, ends, strict=True) if end <= len(text)]


def as_completions(told: Sequence[Told], speaker: Speaker, *, asked: int, offset: int = 0) -> dict[str, Any]:
    """Four lists, one entry a token; ``text_offset`` is where each begins in a text in which ``offset`` stands before.

    ``asked`` is how many of the likeliest were asked for.
    """
    label = speaker.vocabulary.label
    top = [{label(token): value for token, value in each.top} | _itself(each, speaker) for each in told]
    return {
        "tokens": [label(each.token) for each in told],
        "token_logprobs": [each.logprob for each in told],
        "top_logprobs": [row or None for row in top] if asked else None,
        "text_offset": [offset + place for place in _offsets(told, speaker)],
    }


def as_chat(told: Sequence[Told], speaker: Speaker) -> dict[str, Any]:
    """One object a token."""
    rows = [
        {
            **_chat_token(each.token, each.logprob, speaker),
            "top_logprobs": [_chat_token(*row, speaker) for row in each.top],
        }
        for each in told
    ]
    return {"content": rows, "refusal": None}


def _itself(told: Told, speaker: Speaker) -> dict[str, float]:
    """The token that was taken stands beside the likeliest ones."""
    return {} if told.logprob is None else {speaker.vocabulary.label(told.token): told.logprob}


def _chat_token(token: int, logprob: float | None, speaker: Speaker) -> dict[str, Any]:
    vocabulary = speaker.vocabulary
    return {"token": vocabulary.label(token), "logprob": logprob, "bytes": list(vocabulary.bytes_of(token))}


def _offsets(told: Sequence[Told], speaker: Speaker) -> Iterator[int]:
    speech, length = speaker.speech(), 0
    for each in told:
        yield length
        length += len(speech.add(each.token))
