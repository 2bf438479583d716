"""Who plays, made ready to: a model in this process or at a service, or one behind an OpenAI-compatible endpoint."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from fettle.chat import Template, load_tokenizer
from fettle.cli.engines import engine_of, tokenizer_of
from fettle.cli.models import check_kind, start_of, weights_of
from fettle.cli.worlds import Speaker
from fettle.client.chats import ChatEndpoint
from fettle.config import RLRun, SamplingParams
from fettle.config.runs import names_stage
from fettle.engine import Engine, Sampler
from fettle.environments import GameSuite, Suite
from fettle.errors import ConfigError
from fettle.rollouts import Seat
from fettle.training.players import rivals_of, seated, sides
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
    """Where its run started, which opponents are that no setting names; None where nothing tells."""
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
    weights = weights_of(speaker.model)
    check_kind(weights, scores=False)
    async with engine_of(run.engine, Path()) as engine:
        sampler = await engine.sampler(weights)
        yield Voice(sampler, template_of(run, weights), engine, _as_it_is, _start(run, speaker.model))


def _start(run: RLRun, model: str) -> str | None:
    """Where the run of a model started; a model that is only tried in an environment is where that begins."""
    start = run.policy.model
    if not isinstance(start, str) or start == model:
        return None
    return start_of(model) if names_stage(start) else start


def rivals(
    run: RLRun, suites: Sequence[Suite | GameSuite], *, start: str | None, against: str | None = None
) -> dict[str, str]:
    """The weights that sit across from a model, by player of the games; a player who is not there is the model itself.

    ``against``, a run folder or a model, takes every seat.

    Raises:
        ConfigError: somebody is named to play against, and there is no game.
        ModelError: what is named gives scores, and no replies.
    """
    if against is None:
        return rivals_of(run, suites, start=start)
    players = [player for game in suites if isinstance(game, GameSuite) for player in game.players]
    if not players:
        raise ConfigError(f"--against is {against}, and no environment here is a game of several players: leave it out")
    weights = weights_of(against)
    check_kind(weights, scores=False)
    return dict.fromkeys(players, weights)


async def opponents_of(
    run: RLRun, against: Mapping[str, str], voice: Voice, params: SamplingParams
) -> Mapping[str, Seat]:
    """The seats of those whose weights are given."""
    templates = lru_cache(lambda model: template_of(run, model))
    return await seated(against, engine=voice.engine, template_of=templates, params=params)


def told_of(run: RLRun, suites: Sequence[Suite | GameSuite], against: Mapping[str, str]) -> str:
    """Whom a model plays against, in a sentence; nothing where there is no game."""
    games = [game for game in suites if isinstance(game, GameSuite)]
    across = dict.fromkeys(player for game in games for player in game.players if sides(run, game) != [player])
    if not across:
        return ""
    named = {player: against.get(player) for player in across}
    if not any(named.values()):
        return "games against itself, for nothing tells where it started; --against MODEL names somebody else"
    if len(set(named.values())) == 1:
        return f"games against {next(iter(named.values()))}"
    return "games against " + ", ".join(f"{model or 'itself'} as {player}" for player, model in named.items())


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
