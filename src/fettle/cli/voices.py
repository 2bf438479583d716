"""Who plays, made ready to: a model in this process or at a service, or one behind an OpenAI-compatible endpoint."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from fettle.chat import Template, load_tokenizer
from fettle.cli.engines import engine_of, tokenizer_of
from fettle.cli.models import check_kind, weights_of
from fettle.cli.worlds import Speaker
from fettle.client.chats import ChatEndpoint
from fettle.config import RLRun, SamplingParams
from fettle.config.runs import names_stage
from fettle.engine import Engine, Sampler
from fettle.environments import GameSuite, Suite
from fettle.errors import ConfigError
from fettle.rollouts import Seat
from fettle.training.players import opponents
from fettle.types import Trajectory


@dataclass(frozen=True, slots=True)
class Voice:
    """Who plays."""

    sampler: Sampler
    template: Template
    engine: Engine
    """Where opponents play."""
    told: Callable[[Trajectory], Trajectory]
    """A trajectory as it may be kept."""
    start: str | None
    """What opponents are that no setting names; None is the player itself."""
    endpoint: ChatEndpoint | None = None


@asynccontextmanager
async def voice_of(run: RLRun, speaker: Speaker) -> AsyncIterator[Voice]:
    """The speaker, until the block ends.

    Raises:
        ConfigError: the run has a setting that an endpoint cannot keep to.
        ModelError: the model gives scores, and no replies.
    """
    if speaker.endpoint is not None:
        async with engine_of(run.engine, Path()) as engine, _endpoint(run, speaker) as chat:
            # It stands in for a template's tokens with numbers of its own, which no type can say.
            yield Voice(chat, cast(Template, chat), engine, chat.told, None, chat)
        return
    weights, start = weights_of(speaker.model), run.policy.model
    check_kind(weights, scores=False)
    if start == speaker.model:
        start = weights
    async with engine_of(run.engine, Path()) as engine:
        yield Voice(
            await engine.sampler(weights),
            template_of(run, weights),
            engine,
            _as_it_is,
            start if isinstance(start, str) and not names_stage(start) else None,
        )


async def opponents_of(
    run: RLRun, suites: Sequence[Suite | GameSuite], voice: Voice, params: SamplingParams
) -> Mapping[str, Seat]:
    """Whom the voice plays against, where there are games."""
    templates = lru_cache(lambda model: template_of(run, model))
    return await opponents(run, suites, engine=voice.engine, template_of=templates, params=params, start=voice.start)


def template_of(run: RLRun, model: str) -> Template:
    """The template that lies with a model."""
    return Template(load_tokenizer(tokenizer_of(run.engine, model)))


@asynccontextmanager
async def _endpoint(run: RLRun, speaker: Speaker) -> AsyncIterator[ChatEndpoint]:
    if run.limits.tokens is not None:
        raise ConfigError("limits.tokens counts tokens, of which an endpoint tells none: use limits.turns")
    chat = ChatEndpoint(str(speaker.endpoint), speaker.model, speaker.key())
    try:
        yield chat
    finally:
        await chat.close()


def _as_it_is(trajectory: Trajectory) -> Trajectory:
    return trajectory
