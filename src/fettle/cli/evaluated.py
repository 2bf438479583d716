"""Evaluation put together: a run's held-out tasks, put to whoever speaks."""

from dataclasses import replace
from functools import partial

from fettle.cli.voices import opponents_of, rivals, told_of, voice_of
from fettle.cli.worlds import Speaker
from fettle.config import RLRun
from fettle.environments import suite
from fettle.training import Evaluation, evaluate
from fettle.training.players import sides
from fettle.training.standings import heldout_params
from fettle.training.watching import signs


async def evaluation(run: RLRun, speaker: Speaker, against: str | None = None) -> tuple[Evaluation, str]:
    """The held-out tasks of a run, put to a model, a checkpoint or an endpoint; and whom it played games against.

    Raises:
        ConfigError: somebody is named to play against, and there is no game.
        EnvironmentFault: every episode failed.
        FettleError: the model cannot be loaded, or the endpoint refused.
    """
    suites = [suite(environment) for environment in run.environments]
    async with voice_of(run, speaker) as voice:
        params = heldout_params(run, voice.template)
        across = rivals(run, suites, start=voice.start, against=against)
        found = await evaluate(
            suites,
            tasks=run.evaluation.tasks,
            sampler=voice.sampler,
            template=voice.template,
            params=params,
            limits=run.limits,
            seed=run.seed,
            samples=run.evaluation.samples,
            opponents=await opponents_of(run, across, voice, params),
            sides=partial(sides, run),
        )
    return replace(found, trajectories=tuple(map(voice.told, found.trajectories))), told_of(run, suites, across)


def row_of(found: Evaluation) -> dict[str, float]:
    """As metrics, with the signs of hacking that a run watches."""
    return {**found.row, **signs(found.trajectories)}
