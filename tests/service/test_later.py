"""Writes that nobody waits for: in order, and again until they succeed."""

import asyncio

from fettle.errors import CheckpointError, StorageError
from fettle.service import later
from fettle.service.later import Later


async def test_a_write_that_fails_is_tried_again_before_the_next_one(monkeypatch):
    monkeypatch.setattr(later, "PAUSE_S", 0.01)
    written: list[str] = []
    away = [StorageError("the disk is full"), StorageError("the disk is full")]

    async def write(what: str) -> None:
        if what == "first" and away:
            raise away.pop()
        written.append(what)

    async def hopeless() -> None:
        raise CheckpointError("it is gone")

    queue = Later()
    queue.post(lambda: write("first"))
    queue.post(hopeless)
    queue.post(lambda: write("second"))
    await queue.close(patience_s=5)
    assert written == ["first", "second"]


async def test_what_cannot_be_written_in_time_is_dropped_at_the_end():
    async def never() -> None:
        raise StorageError("the disk is full")

    queue = Later()
    queue.post(never)
    async with asyncio.timeout(5):
        await queue.close(patience_s=0.05)


async def test_a_mistake_in_one_write_keeps_no_other_from_being_written():
    written: list[str] = []

    async def mistaken() -> None:
        raise ZeroDivisionError

    async def write() -> None:
        written.append("next")

    queue = Later()
    queue.post(mistaken)
    queue.post(write)
    await queue.close(patience_s=5)
    assert written == ["next"]


async def test_a_write_that_never_succeeds_is_given_up(monkeypatch):
    monkeypatch.setattr(later, "PAUSE_S", 0.0)
    written: list[str] = []

    async def never() -> None:
        raise StorageError("the disk is full")

    async def write() -> None:
        written.append("next")

    queue = Later()
    queue.post(never)
    queue.post(write)
    await queue.close(patience_s=20)
    assert written == ["next"]
