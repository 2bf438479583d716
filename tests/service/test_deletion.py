"""What is about to be deleted is taken up by nobody else, and only what hangs on it is waited for."""

import asyncio
from pathlib import Path

import pytest

from fettle.calls import ForwardBackward, Restore
from fettle.config import CausalLM, PolicySpec
from fettle.errors import BusyError, CheckpointError, StateError
from fettle.service.callers import ANYBODY as ME
from fettle.service.callers import Caller
from fettle.types import datum
from tests.service.inside import LORA, Held, Machine, new_run, saved, trained, until

ALICE = Caller("alice", "key", False, "")
CHECKPOINT = "r/sampler_weights/c"
BATCH = ForwardBackward([datum([1, 2, 3], [0, 1, 1])], CausalLM())


@pytest.fixture
def machine(tmp_path: Path, tiny_model: str) -> Machine:
    return Machine(tmp_path, tiny_model)


async def test_no_run_begins_from_a_checkpoint_while_it_is_being_deleted(machine, monkeypatch):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r", kind="sampler_weights")
        gate, real = asyncio.Event(), service.broker.written_down_without

        async def slow(source):
            await gate.wait()
            await real(source)

        monkeypatch.setattr(service.broker, "written_down_without", slow)
        deleting = asyncio.ensure_future(service.delete_checkpoint(ME, CHECKPOINT))
        await asyncio.sleep(0.05)
        with pytest.raises(StateError, match="is being deleted"):
            await new_run(service, "r2", model=f"fettle://{CHECKPOINT}")
        with pytest.raises(StateError, match="is being deleted"):
            service.submit(ME, "r", None, None, Restore(service.checkpoint(ME, CHECKPOINT).path, False))
        gate.set()
        await deleting
        await trained(service, "r")
    async with machine.service() as service:
        await trained(service, "r")


async def test_a_checkpoint_from_which_a_run_is_beginning_stays(machine, monkeypatch):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r")
        gate, real = asyncio.Event(), service.store.put_run

        async def slow(run):
            await gate.wait()
            await real(run)

        monkeypatch.setattr(service.store, "put_run", slow)
        beginning = asyncio.ensure_future(service.load_run(ME, "r/weights/c", optimizer=True, run_id="l"))
        await until(lambda: service._runs.find("l"))
        with pytest.raises(BusyError, match="is beginning from"):
            await service.delete_checkpoint(ME, "r/weights/c")
        gate.set()
        assert await (await beginning).result() == 0


async def test_a_deletion_does_not_wait_for_what_others_have_waiting(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r")
        await (await service.load_run(ME, "r/weights/c", optimizer=True, run_id="l")).result()
        await service.broker.written_down("l")
        await (await service.create_run(ALICE, PolicySpec(model="tiny", lora=LORA), run_id="a")).result()
        held = await Held(service).begun()
        waiting = service.submit(ALICE, "a", None, None, BATCH)
        async with asyncio.timeout(20):
            await service.delete_checkpoint(ME, "r/weights/c")
        assert not waiting.done
        held.release()


async def test_what_cannot_be_deleted_at_once_is_not_tried_every_second(machine, monkeypatch):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r", ttl_seconds=0.01)
        tried = []

        async def refused(source):
            tried.append(source)
            raise CheckpointError("not now")

        monkeypatch.setattr(service.broker, "written_down_without", refused)
        await asyncio.sleep(0.02)
        for _ in range(5):
            await service._beside.sweep()
            await asyncio.sleep(0.02)
        assert len(tried) == 1


async def test_a_second_saving_of_a_name_leaves_the_first_as_it_was_asked_for(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        held = await Held(service).begun()
        first = await service.save(ME, "r", None, None, kind="weights", name="c", metadata={"nth": "first"})
        with pytest.raises(CheckpointError, match="is being saved already"):
            await service.save(ME, "r", None, None, kind="weights", name="c", ttl_seconds=1, metadata={"nth": "second"})
        held.release()
        await first.result()
        await until(lambda: service._checkpoints.of(ME.tenant))
        entry = service.checkpoint(ME, "r/weights/c")
        assert (entry.metadata, entry.expires_at) == ({"nth": "first"}, None)


async def test_a_name_is_free_again_whose_saving_failed_after_a_crash(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await service.broker.snapshot_all()
        held = await Held(service).begun()
        both = [await service.save(ME, "r", None, None, kind="weights", name=name) for name in "cd"]
        await both[1].durable()
        machine.lose_power()
        held.release()
    machine.come_back()
    folder = machine.state / "checkpoints" / "r" / "weights"
    folder.mkdir(parents=True)
    (folder / "c").write_text("in the way")
    async with machine.service() as service:
        await service.promise(ME, both[1].id).settled()
        await until(lambda: not service._checkpoints._planned)
        assert [entry.name for entry in service._checkpoints.of(ME.tenant)] == ["d"]
        (folder / "c").unlink()
        assert (await saved(service, "r")).answer.digest
        await service._later.close(patience_s=5)
        assert sorted(entry.id for entry in await service.store.checkpoints()) == ["r/weights/c", "r/weights/d"]
