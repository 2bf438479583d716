"""Collecting: episodes of training tasks, drawn to be kept."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from fettle.chat import Template
from fettle.config import RLRun, SamplingParams
from fettle.engine import Sampler
from fettle.environments import GameSuite, Suite
from fettle.errors import ContextError
from fettle.randomness import key
from fettle.rollouts import Seat, episode, match
from fettle.rollouts.collection import Collection
from fettle.training.evaluation import labels
from fettle.training.players import sides
from fettle.types import Failed, Task, Trajectory

AT_ONCE = 256
"""Episodes that are played at the same time."""

Outcome = Sequence[Trajectory] | Failed
"""What came of an episode: a trajectory, or one of each side of a game that the model played."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An episode to be played: one of several of its task."""

    suite: Suite | GameSuite
    group: str
    index: int
    sample: int

    @property
    def name(self) -> str:
        """What it is called in a file."""
        return f"{self.group}/{self.sample}"

    @property
    def task(self) -> Task:
        """The training task of its place."""
        return self.suite.training_task(self.index)


def planned(
    suites: Sequence[Suite | GameSuite], weights: Sequence[float], *, tasks: int, samples: int, seed: int
) -> Iterator[Planned]:
    """``samples`` episodes of each of so many training tasks, drawn from the suites by weight.

    The first tasks are the same however many there are.
    """
    named = list(zip(suites, labels(suites), strict=True))
    for index in range(tasks):
        [(suite, label)] = Random(f"{seed}/suite/{index}").choices(named, weights)
        for sample in range(samples):
            yield Planned(suite, f"{label}/{index}", index, sample)


async def played(
    run: RLRun,
    each: Planned,
    *,
    sampler: Sampler,
    template: Template,
    params: SamplingParams,
    opponents: Mapping[str, Seat],
) -> Outcome:
    """What comes of an episode. Of a game, the sides that the model plays: those that ``run.players`` does not name.

    A task that fills the model's context by itself has failed.
    """
    seeded = params.model_copy(update={"seed": key(run.seed, "collect", each.index, each.sample)})
    task = each.task
    try:
        if isinstance(each.suite, GameSuite):
            own, mine = Seat(sampler, template, seeded), sides(run, each.suite)
            taken = {player: own if player in mine else opponents.get(player, own) for player in each.suite.players}
            seats = {player: _seat(seat, seeded) for player, seat in taken.items()}
            found = await match(task, each.suite.game(), seats=seats, limits=run.limits, group=each.group)
            return found if isinstance(found, Failed) else [found[player] for player in mine if player in found]
        environment = each.suite.environment()
        alone = await episode(
            task,
            environment,
            sampler=sampler,
            template=template,
            params=seeded,
            limits=run.limits,
            group=each.group,
        )
    except ContextError as error:
        return Failed(task, error.message, each.group)
    return alone if isinstance(alone, Failed) else [alone]


def _seat(seat: Seat, params: SamplingParams) -> Seat:
    """As the model draws, but for what each template says ends a reply."""
    return replace(seat, params=params.model_copy(update={"stop_token_ids": seat.params.stop_token_ids}))


async def collect(
    episodes: Iterable[Planned],
    collection: Collection,
    play: Callable[[Planned], Awaitable[Outcome]],
    *,
    told: Callable[[Outcome], None],
    at_once: int = AT_ONCE,
) -> None:
    """Play the episodes that the collection lacks, and keep what comes of each as soon as it is over.

    ``told`` hears of each. When this is cancelled, all that was over is kept.
    """
    left = (each for each in episodes if each.name not in collection.done)

    async def crew() -> None:
        for each in left:
            outcome = await play(each)
            if isinstance(outcome, Failed):
                collection.failed(each.name, outcome)
            else:
                collection.add(each.name, outcome)
            told(outcome)

    crews = [asyncio.ensure_future(crew()) for _ in range(at_once)]
    try:
        await asyncio.gather(*crews)
    finally:
        for each in crews:
            each.cancel()
        await asyncio.gather(*crews, return_exceptions=True)
