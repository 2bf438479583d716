"""What a session keeps of a run."""

import asyncio
import json
import math

import pytest

from fettle.config import Checkpoints
from fettle.errors import EngineError
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
    await session.settled()
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
    await session.settled()
    assert [left.exists(), used.exists(), outlived.exists()] == [False, True, False]


class Slow(Saved):
    """Its checkpoints are written once they may be."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.asked: list[str] = []
        self.may = asyncio.Event()

    async def save(self, name: str) -> Checkpoint:
        self.asked.append(name)
        await self.may.wait()
        return await super().save(name)


async def test_steps_go_on_while_a_checkpoint_is_written_and_a_run_goes_on_from_none_that_is_not_whole(tmp_path):
    folder = RunFolder.at(tmp_path)
    session = Session(folder, Memory(), checkpoints=Checkpoints(every=2), steps=4, stop=asyncio.Event())
    policy = Slow(folder)
    for done in (1, 2, 3):
        assert not await session.finish_step(policy, done)
    assert policy.asked == ["step-000002"]
    assert not folder.progress_path.exists()
    ended = asyncio.create_task(session.finish_step(policy, 4))
    await asyncio.sleep(0)
    assert policy.asked == ["step-000002"], "one checkpoint is written at a time"
    policy.may.set()
    await ended
    assert policy.asked == ["step-000002", "step-000004"]
    assert Session.ended(folder).steps == 4


async def test_what_was_saved_before_an_error_is_there_after_it(tmp_path):
    folder = RunFolder.at(tmp_path)
    session = Session(folder, Memory(), checkpoints=Checkpoints(every=1), steps=9, stop=asyncio.Event())
    policy = Slow(folder)

    async def failing() -> None:
        async with session.seen_through():
            await session.finish_step(policy, 1)
            asyncio.get_running_loop().call_soon(policy.may.set)
            raise EngineError("a later step")

    with pytest.raises(EngineError):
        await failing()
    assert Session.ended(folder).steps == 1


async def test_what_the_progress_file_names_stays_until_it_names_others(tmp_path):
    folder = RunFolder.at(tmp_path)
    session = Session(folder, Memory(), checkpoints=Checkpoints(every=10, keep=1), steps=30, stop=asyncio.Event())
    earlier, later = (folder.checkpoints / name for name in ("past-000002", "past-000012"))
    for past, done in ((earlier, 10), (later, 16)):
        past.mkdir()
        session.hold([past.name])
        if done == 16:
            await session.evaluated(Saved(folder), 15, 0.5, {})
        await session.finish_step(Saved(folder), done)
        await session.settled()
    named = json.loads(folder.progress_path.read_text())
    assert (named["step"], named["held"]) == (10, [earlier.name])
    assert [each.exists() for each in (earlier, later)] == [True, True]
    await session.finish_step(Saved(folder), 20)
    await session.settled()
    assert [each.exists() for each in (earlier, later)] == [False, True]
