"""What a run has said, group by group: the episodes that its clients told of, or else its last draws.

An episode is a mapping with ``step`` and ``reward``, and as it likes ``messages`` (``role``, ``content``), ``group``,
``advantage``, ``components`` (rewards by name), ``note``, and ``tokens`` (``text``, ``logprob``) of the last message.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fettle.service.faces.console.shown import clipped, finite, visible
from fettle.service.faces.openai.speech import Speech
from fettle.service.models import Model
from fettle.service.recent import Drawn
from fettle.types import Completion

MOST_GROUPS = 12
"""On one page."""
MOST_SAMPLES = 64
"""Of one group."""
MOST_MESSAGES = 100
LONGEST_NAME = 40
"""Characters of a role, a group or a part of a reward."""
MOST_TOKENS = 2_000
"""Of one text that are coloured."""
SHADES = (0.9, 0.7, 0.5, 0.3, 0.15, 0.05, 0.0)
"""Least probability of each colour, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token: its text, its colour, and its log-probability in words."""

    text: str
    shade: int
    told: str


@dataclass(frozen=True, slots=True)
class Said:
    """One message; with ``pieces`` its tokens are coloured."""

    role: str
    text: str
    more: int = 0
    """Characters that were left out."""
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to a prompt."""

    said: tuple[Said, ...]
    reward: float | None = None
    advantage: float | None = None
    components: tuple[tuple[str, float], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Answers to one prompt, side by side."""

    title: str
    prompt: tuple[Said, ...]
    samples: tuple[Sample, ...]
    more: int = 0
    """Samples that were left out."""

    @property
    def mean(self) -> float | None:
        """Of their rewards."""
        rewards = [sample.reward for sample in self.samples if sample.reward is not None]
        return sum(rewards) / len(rewards) if rewards else None


def groups_of_episodes(
    rows: Sequence[Mapping[str, Any]], *, step: int | None = None, least: float | None = None
) -> list[Group]:
    """The newest groups, newest first: of one step, if it is given, and with a reward of ``least`` or more."""
    grouped: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for place, row in enumerate(reversed(rows)):
        if step is not None and row.get("step") != step:
            continue
        if least is not None and not (finite(row.get("reward")) or 0.0) >= least:
            continue
        named = str(row.get("group") or "") or f"\0{place}"  # one without a group stands alone
        grouped.setdefault((int(row["step"]), named), []).append(row)
    return [_group(step, named, members[::-1]) for (step, named), members in islice(grouped.items(), MOST_GROUPS)]


def groups_of_draws(draws: Iterable[Drawn], model: Model) -> list[Group]:
    """The last draws as groups: each prompt with its completions, their tokens coloured."""
    found = (group for drawn in draws for group in _of_draw(drawn, model))
    return list(islice(found, MOST_GROUPS))


def shade(logprob: float) -> int:
    """The colour of a token that had this log-probability; 0 is the likeliest.

    >>> shade(0.0), shade(math.log(0.6)), shade(-20.0)
    (0, 2, 6)
    """
    probability = math.exp(min(logprob, 0.0))
    return next(place for place, least in enumerate(SHADES) if probability >= least)


def _group(step: int, named: str, members: Sequence[Mapping[str, Any]]) -> Group:
    conversations = [_messages(row) for row in members[:MOST_SAMPLES]]
    shared = _shared(conversations)
    samples = [_sample(row, said[shared:]) for row, said in zip(members, conversations, strict=False)]
    title = f"Step {step:,}" + ("" if named.startswith("\0") else f", group {visible(named)[:LONGEST_NAME]}")
    return Group(title, conversations[0][:shared], tuple(samples), len(members) - len(samples))


def _shared(conversations: Sequence[Sequence[Said]]) -> int:
    """How many messages all begin with; the last of each is its own."""
    shortest = max(0, min(len(said) for said in conversations) - 1)
    unlike = (place for place in range(shortest) if len({said[place] for said in conversations}) > 1)
    return next(unlike, shortest)


def _sample(row: Mapping[str, Any], said: tuple[Said, ...]) -> Sample:
    components = row.get("components")
    named = components.items() if isinstance(components, Mapping) else ()
    return Sample(
        said,
        reward=finite(row.get("reward")),
        advantage=finite(row.get("advantage")),
        components=tuple(
            (visible(name)[:LONGEST_NAME], value) for name, told in named if (value := finite(told)) is not None
        ),
        note=clipped(str(row.get("note") or ""))[0],
    )


def _messages(row: Mapping[str, Any]) -> tuple[Said, ...]:
    messages = row.get("messages")
    rows = [each for each in messages if isinstance(each, Mapping)] if isinstance(messages, list) else []
    said = [_said(str(each.get("role") or "?"), str(each.get("content") or "")) for each in rows[:MOST_MESSAGES]]
    tokens = row.get("tokens")
    if said and isinstance(tokens, list) and (pieces := _pieces_told(tokens)):
        said[-1] = Said(said[-1].role, said[-1].text, said[-1].more, pieces)
    return tuple(said)


def _said(role: str, content: str) -> Said:
    text, more = clipped(content)
    return Said(visible(role)[:LONGEST_NAME], text, more)


def _pieces_told(tokens: Sequence[Any]) -> tuple[Piece, ...]:
    rows = [each for each in tokens[:MOST_TOKENS] if isinstance(each, Mapping)]
    return tuple(_piece(str(each.get("text") or ""), finite(each.get("logprob"))) for each in rows)


def _piece(text: str, logprob: float | None) -> Piece:
    if logprob is None:
        return Piece(visible(text), len(SHADES), "")
    return Piece(visible(text), shade(logprob), f"{logprob:.3f} nats, {math.exp(min(logprob, 0.0)):.1%}")


def _of_draw(drawn: Drawn, model: Model) -> Iterator[Group]:
    left = iter(drawn.completions)
    for request in drawn.requests:
        prompt = _said("prompt", model.text_of(request.prompt))
        completions = list(islice(left, request.n))
        samples = tuple(Sample((_completion(each, model),)) for each in completions[:MOST_SAMPLES])
        title = f"{drawn.at:%H:%M:%S} UTC"
        if completions:
            title += f", weights of version {completions[0].policy_version}"
        yield Group(title, (prompt,), samples, max(0, len(completions) - MOST_SAMPLES))


def _completion(completion: Completion, model: Model) -> Said:
    text, more = clipped(model.text_of(completion.tokens))
    speech = Speech(model.text_of)
    texts = [speech.add(token) for token in completion.tokens[:MOST_TOKENS]]
    texts[-1:] = [last + speech.rest() for last in texts[-1:]]
    pieces = zip(texts, completion.logprobs, strict=False)
    return Said("completion", text, more, tuple(_piece(text, logprob) for text, logprob in pieces))
