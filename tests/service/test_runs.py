"""Runs: the catalogue and the broker say the same of them, whenever the process ends, and one waits for no other."""

import asyncio
from pathlib import Path

import pytest

from fettle.calls import Close, ForwardBackward, OptimStep
from fettle.config import AdamW, CausalLM, PolicySpec, SamplingParams, Scheduling
from fettle.engine.base import SampleRequest
from fettle.errors import BusyError, FettleError, StorageError
from fettle.service import goingon
from fettle.service.callers import ANYBODY as ME
from fettle.service.core import Service
from fettle.types import datum
from tests.service.inside import LORA, Held, Machine, new_run, saved, trained, until

BATCH = ForwardBackward([datum([1, 2, 3], [0, 1, 1])], CausalLM())


@pytest.fixture
def machine(tmp_path: Path, tiny_model: str) -> Machine:
    return Machine(tmp_path, tiny_model)


async def test_a_run_that_was_refused_is_nowhere(machine):
    async with machine.service(scheduling={"waiting_operations": 1, "tenant_share": 1.0}) as service:
        await new_run(service, "r")
        held = await Held(service).begun()
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
        held = await Held(service).begun()
        completing = asyncio.ensure_future(service.set_state(ME, "r", "completed"))
        await until(lambda: service.run(ME, "r").state == "completed")
        machine.lose_power()
        held.release()
        await completing
    machine.come_back()
    async with machine.service() as service:
        await until(lambda: not service.broker.policies())


async def test_a_run_that_was_closed_in_the_broker_alone_is_completed_at_the_next_start(machine, monkeypatch):
    monkeypatch.setattr("fettle.service.core.LAST_WRITES_S", 0.1)
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
        held = await Held(service).begun()
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
        held = await Held(service).begun()
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


async def test_a_run_is_completed_where_its_tenant_has_every_place_taken(machine):
    async with machine.service(scheduling=Scheduling(waiting_operations=4)) as service:
        await new_run(service, "r")
        held = await Held(service).begun()
        for _ in range(4):
            service.submit(ME, "r", None, None, BATCH)
        completing = asyncio.ensure_future(service.set_state(ME, "r", "completed"))
        await until(lambda: service.run(ME, "r").state == "completed")
        held.release()
        await completing
        assert not service.broker.policies()


async def test_what_could_not_be_closed_is_closed_later(machine, monkeypatch):
    monkeypatch.setattr(goingon, "ATTEMPTED_AGAIN_S", 0.0)

    async def refused(_):
        raise StorageError("the disk is full")

    async with machine.service() as service:
        await new_run(service, "r")
        with monkeypatch.context() as patched:
            patched.setattr(service.broker, "attach", refused)
            with pytest.raises(StorageError):
                await service.set_state(ME, "r", "completed")
        assert service.run(ME, "r").state == "completed"
        assert "r" in service.broker.policies()
        await service._beside.sweep()
        await until(lambda: not service.broker.policies())


async def test_what_is_answered_before_the_service_knows_its_counts_is_counted_once(machine, monkeypatch):
    async with machine.service() as service:
        await new_run(service, "r")
        await trained(service, "r")
        await service.usage.flush()
        held = await Held(service).begun()
        await service.submit(ME, "r", None, None, BATCH).durable()
        machine.lose_power()
        held.release()
    machine.come_back()
    real = Service.recovered

    async def late(service):
        await service.broker.drained()
        return await real(service)

    monkeypatch.setattr(Service, "recovered", late)
    async with machine.service() as service:
        await asyncio.sleep(0)
        await service.usage.flush()
        counted = {row.kind: row.operations for row in await service.usage.accounts.usage()}
        assert counted == {"create": 1, "forward_backward": 2, "optim_step": 1}


async def test_loading_again_is_the_same_promise_where_an_older_overwriting_came_to_its_end_since(machine):
    async with machine.service() as service:
        for id in ("r", "q"):
            await new_run(service, id)
        await saved(service, "r")
        held = await Held(service).begun()
        overwriting = await service.save(ME, "r", None, None, kind="weights", name="c", overwrite=True)
        loading = await service.load_run(ME, "r/weights/c", optimizer=True, run_id="l")
        held.release()
        await overwriting.result()
        await loading.result()
        assert await service.load_run(ME, "r/weights/c", optimizer=True, run_id="l") is loading


async def test_savings_of_one_run_do_not_wait_for_those_of_another(machine, monkeypatch):
    async with machine.service() as service:
        for id in ("r", "q"):
            await new_run(service, id)
        gate, real = asyncio.Event(), service.store.put_checkpoint

        async def slow(entry):
            if entry.run == "r":
                await gate.wait()
            await real(entry)

        monkeypatch.setattr(service.store, "put_checkpoint", slow)
        slowly = asyncio.ensure_future(saved(service, "r"))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            assert (await saved(service, "q")).answer.digest
        assert not slowly.done()
        gate.set()
        await slowly


async def test_draws_from_a_run_that_is_over_are_not_kept(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r", kind="sampler_weights")
        await service.open_sampler(ME, checkpoint="r/sampler_weights/c", sampler_id="s")
        asked = [SampleRequest([1], 1, SamplingParams(max_tokens=2))]
        await service.draw(ME, "one", "s", asked).result()
        await until(lambda: service.told.draws("r"))
        await service.set_state(ME, "r", "completed")
        await service.draw(ME, "two", "s", asked).result()
        await asyncio.sleep(0)
        assert service.told.draws("r") == []
