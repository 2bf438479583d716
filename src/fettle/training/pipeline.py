"""Runs one after another, each starting from the checkpoint that the one before left."""

from collections.abc import Awaitable, Callable

from fettle.config import Pipeline, StageConfig
from fettle.training.session import Summary


async def train(pipeline: Pipeline, run_stage: Callable[[StageConfig], Awaitable[Summary]]) -> list[Summary]:
    """Run the stages in order; a stage that was finished before only hands on what it left.

    Stops after a stage that was interrupted.
    """
    summaries: list[Summary] = []
    for stage in pipeline.stages:
        if summaries:
            policy = stage.policy.model_copy(update={"model": summaries[-1].checkpoint})
            stage = stage.model_copy(update={"policy": policy})
        summaries.append(await run_stage(stage))
        if summaries[-1].interrupted:
            break
    return summaries
