"""Collecting put together: the settings that a file stands for, the model, and the episodes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fettle.cli.voices import opponents_of, rivals, voice_of
from fettle.cli.worlds import Speaker
from fettle.config import RLRun, SamplingParams
from fettle.environments import sheltered, suite
from fettle.rollouts.collection import Collection
from fettle.training.collecting import Outcome, Planned, collect, planned, played
from fettle.types import Failed


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be collected."""

    run: RLRun
    speaker: Speaker
    tasks: int
    samples: int
    temperature: float | None = None

    @property
    def count(self) -> int:
        """How many episodes there are to be."""
        return self.tasks * self.samples

    @property
    def drawing(self) -> SamplingParams:
        """How replies are drawn."""
        sampling = self.run.sampling
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature if self.temperature is None else self.temperature,
            stop=sampling.stop,
        )


def opened(asked: Asked, out: Path) -> Collection:
    """The file, new or as it was left.

    Raises:
        ConfigError: it was collected with other settings.
        StorageError: it cannot be written.
    """
    run, drawing = asked.run, asked.drawing
    return Collection(
        out,
        {
            "model": asked.speaker.model,
            "endpoint": asked.speaker.endpoint,
            "environments": [json.loads(each.model_dump_json()) for each in run.environments],
            "players": {name: json.loads(player.model_dump_json()) for name, player in run.players.items()},
            "limits": json.loads(run.limits.model_dump_json()),
            "max_tokens": drawing.max_tokens,
            "temperature": drawing.temperature,
            "stop": drawing.stop,
            "seed": run.seed,
        },
    )


async def collect_into(asked: Asked, collection: Collection, told: Callable[[Outcome], None]) -> None:
    """Play what the collection lacks; a model is loaded only where that is something."""
    run = asked.run
    suites = [suite(environment) for environment in run.environments]
    heldout = {task.prompt for each in suites for task in each.heldout_tasks()}
    suites = [sheltered(each, heldout) for each in suites]
    weights = [environment.weight for environment in run.environments]
    episodes = [
        each
        for each in planned(suites, weights, tasks=asked.tasks, samples=asked.samples, seed=run.seed)
        if each.name not in collection.done
    ]
    if not episodes:
        return
    async with voice_of(run, asked.speaker) as voice:
        ends = tuple(sorted(voice.template.end_token_ids))
        params = asked.drawing.model_copy(update={"stop_token_ids": ends})
        against = await opponents_of(run, rivals(run, suites, start=voice.start), voice, params)

        async def play(each: Planned) -> Outcome:
            outcome = await played(
                run, each, sampler=voice.sampler, template=voice.template, params=params, opponents=against
            )
            return outcome if isinstance(outcome, Failed) else list(map(voice.told, outcome))

        await collect(episodes, collection, play, told=told)
