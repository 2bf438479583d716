"""Runs: the catalogue and the broker say the same of them, whenever the process ends, and one waits for no other."""

import asyncio
from pathlib import Path

import pytest

from fettle.calls import Close, ForwardBackward, OptimStep
from fettle.config import AdamW, CausalLM, PolicySpec
from fettle.errors import BusyError, FettleError
from fettle.service.callers import ANYBODY as ME
from fettle.types import datum
from tests.service.inside import LORA, Held, Machine, new_run, trained, until

BATCH = ForwardBackward([datum([1, 2, 3], [0, 1, 1])], CausalLM())


@pytest.fixture
def machine(tmp_path: Path, tiny_model: str) -> Machine:
    return Machine(tmp_path, tiny_model)


async def test_a_run_that_was_refused_is_nowhere(machine):
    async with machine.service(scheduling={"waiting_operations": 1, "tenant_share": 1.0}) as service:
        await new_run(service, "r")
        held = Held(service)
        service.submit(ME, "r", None, None, BATCH)
        with pytest.raises(BusyError):
            await service.create_run(ME, PolicySpec(model="tiny", lora=LORA), run_id="refused")
        held.release()
        assert [run.id for run in (await service.runs(ME, limit=9))[0]] == ["r"]
        await service._later.close(patience_s=5)
        assert [run.id for run in await service.store.runs()] == ["r"]
        await service.broker.drained()
        assert not isinstance((await new_run(service, "refused")).answer, FettleError)


async def test_a_run_that_was_completed_in_the_catalogue_alone_is_closed_at_the_next_start(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await service.broker.written_down("r")
        held = Held(service)
        completing = asyncio.ensure_future(service.set_state(ME, "r", "completed"))
        await until(lambda: service.run(ME, "r").state == "completed")
        machine.lose_power()
        held.release()
        await completing
    machine.come_back()
    async with machine.service() as service:
        await until(lambda: not service.broker.policies())


async def test_a_run_that_was_closed_in_the_broker_alone_is_completed_at_the_next_start(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        service._later.post(asyncio.Event().wait)
        await service.submit(ME, "r", None, None, Close()).result()
        await asyncio.sleep(0.3)
        machine.lose_power()
    machine.come_back()
    async with machine.service() as service:
        assert service.run(ME, "r").state == "completed"


async def test_work_that_an_earlier_process_took_in_is_told_and_ends_the_run(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await service.broker.written_down("r")
        held = Held(service)
        for call in (BATCH, OptimStep(AdamW(learning_rate=0.1)), Close()):
            last = service.submit(ME, "r", None, None, call)
        await last.durable()
        machine.lose_power()
        held.release()
    machine.come_back()
    async with machine.service() as service:
        await until(lambda: service.run(ME, "r").state == "completed")
        await service._later.close(patience_s=5)
        assert [row["step"] for row in await service.told.metrics("r")] == [1]
        await service.usage.flush()
        counted = {row.kind: row.operations for row in await service.usage.accounts.usage()}
        assert counted.items() >= {"forward_backward": 1, "optim_step": 1}.items()


async def test_pausing_again_gives_the_memory_back_if_the_first_time_did_not(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await trained(service, "r")
        held = Held(service)
        pausing = asyncio.ensure_future(service.set_state(ME, "r", "paused"))
        await until(lambda: service.run(ME, "r").state == "paused")
        pausing.cancel()
        held.release()
        await service.set_state(ME, "r", "paused")
        assert service.broker.policies()["r"].parked


async def test_a_run_that_is_completed_and_paused_at_once_is_one_of_them(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await asyncio.gather(
            service.set_state(ME, "r", "completed"), service.set_state(ME, "r", "paused"), return_exceptions=True
        )
        assert service.run(ME, "r").state == "completed"
        assert not service.broker.policies()


async def test_a_run_with_a_missing_number_holds_up_neither_the_upkeep_nor_the_end(machine):
    async with machine.service(session_timeout_s=0.5) as service:
        await service.start()
        session = await service.create_session(ME)
        await new_run(service, "gap", session=session)
        service.submit(ME, "gap", 0, 5, BATCH)
        await until(lambda: not service.sessions.silent() and service.sessions.session(ME, session).finished_at)
        await new_run(service, "r")
        await trained(service, "r")
        marks = {}

        async def look() -> None:
            marks.update(await service.usage.accounts.marks())

        async with asyncio.timeout(20):
            while "r" not in marks:
                await look()
                await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            await service.stop(patience_s=0.5)
