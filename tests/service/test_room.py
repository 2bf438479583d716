"""Memory that tenants share: none keeps another from its first run, and idle runs give theirs back."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fettle.config import LoRA, PolicySpec
from fettle.errors import BusyError, FettleError, ModelError
from fettle.service import idleness
from fettle.service.callers import Caller
from fettle.service.capacity import USABLE
from fettle.service.core import Service
from tests.service.inside import Machine

GREEDY, OTHER = (Caller(tenant=tenant, key="", admin=False) for tenant in ("greedy", "other"))
SPEC = PolicySpec(model="tiny", lora=LoRA(rank=2))


@pytest.fixture
def machine(tmp_path: Path, tiny_model: str) -> Machine:
    return Machine(tmp_path, tiny_model)


async def made(service: Service, caller: Caller, id: str) -> None:
    promise = await service.create_run(caller, SPEC, run_id=id)
    await promise.settled()
    assert not isinstance(promise.answer, FettleError), promise.answer


async def small(service: Service, *, runs: float, share: float = 0.5) -> None:
    """Room for so many runs; the frozen model that they share is there already."""
    await made(service, GREEDY, "first")
    room = service._runs._room
    needed = room._bytes_of(SPEC)
    room._capabilities = replace(room._capabilities, memory_bytes=int(runs * needed / USABLE) + 1)
    room._share = share


def parked(service: Service) -> set[str]:
    return {name for name, info in service.broker.policies().items() if info.parked}


async def test_a_tenant_that_takes_all_it_can_leaves_another_its_first_run(machine):
    async with machine.service() as service:
        await small(service, runs=4)
        await made(service, GREEDY, "second")
        with pytest.raises(BusyError, match="GiB together: pause or complete one"):
            await made(service, GREEDY, "third")
        await made(service, OTHER, "others")
        await service.set_state(GREEDY, "first", "paused")
        await made(service, GREEDY, "third")


async def test_idle_runs_give_their_memory_back_before_one_is_refused(machine, monkeypatch):
    monkeypatch.setattr(idleness, "IDLE", timedelta(0))
    async with machine.service() as service:
        await small(service, runs=4)
        await made(service, GREEDY, "second")
        await made(service, GREEDY, "third")
        assert parked(service) == {"first"}
        await made(service, OTHER, "others")
        assert parked(service) == {"first"}


async def test_a_full_device_takes_from_whoever_is_idle(machine, monkeypatch):
    async with machine.service() as service:
        await small(service, runs=2, share=1.0)
        await made(service, GREEDY, "second")
        with pytest.raises(BusyError, match="are free: pause or complete another"):
            await made(service, OTHER, "others")
        monkeypatch.setattr(idleness, "IDLE", timedelta(0))
        await made(service, OTHER, "others")
        assert parked(service) == {"first"}


@pytest.mark.parametrize(("runs", "error"), [(1.5, BusyError), (0.5, ModelError)])
async def test_a_run_that_has_no_room_leaves_nothing_behind(machine, runs, error):
    async with machine.service() as service:
        await small(service, runs=runs, share=1.0)
        await service._later.close(patience_s=5)
        before = await service.store.runs(), service.counts()["calls"]
        with pytest.raises(error):
            await service.create_run(OTHER, SPEC, run_id="refused")
        await service._later.close(patience_s=5)
        assert (await service.store.runs(), service.counts()["calls"]) == before
        assert not list(machine.state.rglob("*refused*"))
        assert (await service.runs(OTHER, limit=9))[1] == 0
        assert "refused" not in service.broker.policies()
        service._runs._room._capabilities = replace(service._runs._room._capabilities, memory_bytes=0)
        await made(service, OTHER, "refused")
