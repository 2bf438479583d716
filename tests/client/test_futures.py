"""Futures: taken in, then done; giving up cancels nothing, cancelling does."""

import asyncio
from functools import partial

import pytest

from fettle.client.futures import Future, FutureGroup
from fettle.client.transport import Transport, outcome
from fettle.errors import CancelledError, ConfigError, LossInputError, TimeoutError


class Operations:
    """Operations at a raw server, each done when the test says so."""

    def __init__(self, raw):
        self.transport = Transport(raw.url)
        self.answers: dict[str, asyncio.Future] = {}
        self.taken = asyncio.Event()
        self.raw = raw
        raw.says = self._says

    def future(self, name: str) -> Future:
        self.answers[name] = asyncio.get_running_loop().create_future()
        return Future(self.transport, self._submitted(name), partial(outcome, self.transport))

    def end(self, name: str, **told) -> None:
        if not self.answers[name].done():
            self.answers[name].set_result({"status": "completed", "result": name, **told})

    async def _submitted(self, name):
        return (await self.transport.post("/v1/submit", {"name": name}))["id"]

    async def _says(self, asked):
        if asked.path == "/v1/submit":
            self.taken.set()
            return 202, {"id": asked.tree["name"]}
        name = asked.path.rpartition("/")[2]
        if asked.method == "DELETE":
            self.end(name, status="failed", error={"code": "cancelled", "message": "it was cancelled"})
            return 200, {"cancelled": True}
        return 200, await asyncio.shield(self.answers[name])


@pytest.fixture
def operations(raw):
    return Operations(raw)


async def test_the_first_await_is_for_being_taken_in_and_the_second_for_the_result(operations):
    future = await operations.future("one").submitted()
    assert not future.done
    operations.end("one")
    assert (await future, await future, future.done) == ("one", "one", True)


async def test_an_operation_begins_without_being_awaited(operations):
    future = operations.future("one")
    await operations.taken.wait()
    operations.end("one")
    assert await future.result() == "one"


async def test_giving_up_waiting_cancels_nothing(operations):
    future = operations.future("one")
    with pytest.raises(TimeoutError, match=r"did not come in 0\.05 s: the work goes on"):
        await future.result(timeout=0.05)
    waiting = asyncio.ensure_future(future.result())
    await asyncio.sleep(0)
    waiting.cancel()
    operations.end("one")
    assert await future == "one"
    assert {asked.method for asked in operations.raw.asked} == {"POST", "GET"}


async def test_a_cancelled_operation_says_so(operations):
    future = operations.future("one")
    assert await future.cancel()
    with pytest.raises(CancelledError, match="it was cancelled"):
        await future
    assert not await future.cancel()


async def test_an_operations_error_is_its_result(operations):
    future = operations.future("one")
    operations.end("one", status="failed", error={"code": "loss_input", "message": "no such token"})
    with pytest.raises(LossInputError, match="no such token"):
        await future


async def test_a_group_gives_its_results_in_order(operations):
    group = FutureGroup()
    for name in ("one", "two", "three"):
        group.add(operations.future(name))
    for name in ("three", "one", "two"):
        operations.end(name)
    assert await group.wait_all(timeout=10) == ["one", "two", "three"]


async def test_a_group_gives_whatever_is_done_first(operations):
    group = FutureGroup()
    futures = {name: operations.future(name) for name in ("one", "two", "three")}
    for future in futures.values():
        group.add(future)
    for name in ("two", "three", "one"):
        operations.end(name)
        assert await group.wait_any(timeout=10) is futures[name]
    with pytest.raises(ConfigError, match="add a future"):
        await group.wait_any()


async def test_a_groups_time_is_bounded_and_its_futures_go_on(operations):
    group = FutureGroup()
    futures = [operations.future(name) for name in ("one", "two")]
    for future in futures:
        group.add(future)
    for wait in (group.wait_any, group.wait_all):
        with pytest.raises(TimeoutError):
            await wait(timeout=0.05)
    operations.end("one")
    operations.end("two", status="failed", error={"code": "data", "message": "wrong"})
    assert await futures[0] == "one"
    assert await group.wait_any() is futures[0]
    failed = await group.wait_any()
    assert failed.done


async def test_a_group_is_cancelled_as_one(operations):
    group = FutureGroup()
    futures = [operations.future(name) for name in ("one", "two")]
    for future in futures:
        group.add(future)
    assert await group.cancel() == 2
    for future in futures:
        with pytest.raises(CancelledError):
            await future
