"""A policy goes on while its checkpoint is written, and nothing that hangs on the save overtakes it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from fettle.calls import Close, Save
from tests.broker.processes import Process, call, opened


@pytest.fixture
def slowly(monkeypatch) -> Callable[[Process], Callable[[], None]]:
    """Has a process say of its checkpoints that they are whole when what this gives is called."""

    def held_up(process: Process) -> Callable[[], None]:
        waiting, save = [], process.backend.save

        def later(*asked, **how) -> Future:
            waiting.append((Future(), save(*asked, **how).result()))
            return waiting[-1][0]

        def told() -> None:
            for future, saved in waiting:
                future.set_result(saved)

        monkeypatch.setattr(process.backend, "save", later)
        return told

    return held_up


async def test_steps_are_answered_before_the_save_and_a_snapshot_of_them_waits_for_it(started, slowly):
    one = await started()
    opened(one)
    told = slowly(one)
    save = one.broker.submit("run", 0, 0, Save("x", True))
    await one.broker.submit("run", 0, 1, call(1)).result()
    written = asyncio.create_task(one.broker.written_down("run"))
    await one.broker.run(lambda: None)
    assert not save.done
    assert not written.done()
    told()
    await written
    assert (await save.result()).name == "x"
    assert one.broker._desk.logs["run"].written.begin == (0, 2)


async def test_a_close_is_answered_after_the_save_before_it(started, slowly):
    one = await started()
    opened(one)
    told, order = slowly(one), []
    promises = [one.broker.submit("run", 0, seq, each) for seq, each in enumerate((Save("x", True), Close()))]
    for promise in promises:
        promise.when_done(lambda done: order.append(done.kind))
    for _ in range(3):
        await one.broker.run(lambda: None)
    assert order == []
    told()
    await promises[1].result()
    assert order == ["save", "close"]
