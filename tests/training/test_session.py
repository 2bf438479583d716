"""What a session keeps of a run."""

import asyncio
import math

from fettle.config import Checkpoints
from fettle.tracking import RunFolder
from fettle.training import Session
from fettle.types import Checkpoint

from .conftest import Memory


class Saved:
    """Satisfies ``Policy`` as far as saving goes."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    async def save(self, name: str) -> Checkpoint:
        path = self._folder.checkpoints / name
        path.mkdir()
        return Checkpoint(name, str(path), 0, "")


async def test_evaluations_are_kept_whatever_they_found(tmp_path):
    folder = RunFolder.at(tmp_path)
    session = Session(folder, Memory(), checkpoints=Checkpoints(every=1), steps=3, stop=asyncio.Event())
    rows = [{"heldout/reward": 0.5}, {"heldout/reward": 0.75}, {"heldout/reward": 0.25, "heldout/loss": math.inf}]
    for done, row in enumerate(rows):
        await session.evaluated(Saved(folder), done, row["heldout/reward"], row)
        await session.finish_step(Saved(folder), done)
    again = Session(folder, Memory(), checkpoints=Checkpoints(every=1), steps=3, stop=asyncio.Event())
    assert again.progress.evaluations == tuple(rows)
    ended = Session.ended(folder)
    assert (ended.first, ended.best, ended.last) == tuple(rows)
    assert (ended.steps, ended.interrupted) == (2, False)
    assert ended.best_checkpoint == str(folder.checkpoints / "step-000001")


async def test_what_an_engine_writes_beside_checkpoints_stays_for_as_long_as_the_run_lives(tmp_path):
    folder = RunFolder.at(tmp_path)
    left, used, outlived = (folder.checkpoints / name for name in (".ranks-dead", ".ranks-alive", "step-000009"))
    left.mkdir()
    session = Session(folder, Memory(), checkpoints=Checkpoints(every=1), steps=3, stop=asyncio.Event())
    for path in (used, outlived):
        path.mkdir()
    await session.finish_step(Saved(folder), 1)
    assert [left.exists(), used.exists(), outlived.exists()] == [False, True, False]
