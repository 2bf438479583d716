"""Company: what was asked for in one turn of the loop is gone on from in one turn, and nobody is waited for long."""

import asyncio

import pytest

from fettle.environments.remote import company
from fettle.environments.remote.company import Companies


class Batches:
    """Sizes of what came in one turn of the loop, as the engine joins samples."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._open = False

    def came(self) -> None:
        if not self._open:
            self._open = True
            self.sizes.append(0)
            asyncio.get_running_loop().call_soon(self._close)
        self.sizes[-1] += 1

    def _close(self) -> None:
        self._open = False


async def after(turns: int) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return turns


async def test_answers_that_come_one_by_one_are_gone_on_from_together():
    companies, batches = Companies(), Batches()

    async def one(turns: int) -> int:
        found = await companies.answer(after(turns))
        batches.came()
        return found

    assert await asyncio.gather(*map(one, range(1, 30, 3))) == list(range(1, 30, 3))
    assert batches.sizes == [10]


async def test_one_that_stays_away_does_not_hold_the_others_for_ever(monkeypatch):
    monkeypatch.setattr(company, "HELD", 0.01)
    companies, never = Companies(), asyncio.Event()
    away = asyncio.create_task(companies.answer(never.wait()))
    assert await companies.answer(after(1)) == 1
    assert not away.done()
    never.set()
    assert await away


async def test_one_that_fails_or_gives_up_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(company, "HELD", 3600.0)
    companies, never = Companies(), asyncio.Event()

    async def broken() -> None:
        raise ConnectionError

    failing = asyncio.create_task(companies.answer(broken()))
    leaving = asyncio.create_task(companies.answer(never.wait()))
    staying = asyncio.create_task(companies.answer(after(1)))
    await after(5)
    assert not staying.done()
    leaving.cancel()
    assert await staying == 1
    with pytest.raises(ConnectionError):
        await failing


async def test_those_of_another_turn_are_another_company(monkeypatch):
    monkeypatch.setattr(company, "HELD", 3600.0)
    companies, never = Companies(), asyncio.Event()
    away = asyncio.create_task(companies.answer(never.wait()))
    await after(3)
    assert await companies.answer(after(1)) == 1
    away.cancel()


async def test_episodes_at_a_server_go_on_together(served, monkeypatch):
    monkeypatch.setattr(company, "HELD", 3600.0)
    suite, batches = served.suite(), Batches()

    async def begun() -> None:
        environment = suite.environment()
        await environment.reset(suite.training_task(0))
        batches.came()
        await environment.close()

    await asyncio.gather(*(begun() for _ in range(64)))
    assert batches.sizes == [64]
