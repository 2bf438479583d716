"""Checkpoints: what was answered is there after a crash, and what somebody stands on is not taken away."""

import asyncio
import hashlib
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from fettle.broker import Promise
from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.errors import FettleError, NotFoundError, SequenceError
from fettle.service.callers import ANYBODY as ME
from tests.service.inside import Held, Machine, new_run, saved, trained, until


@pytest.fixture
def machine(tmp_path: Path, tiny_model: str) -> Machine:
    return Machine(tmp_path, tiny_model)


def folders(machine: Machine, kind: str) -> list[str]:
    """What lies under a run's kind of checkpoints."""
    return [str(path) for path in (machine.state / "checkpoints" / kind).iterdir()]


async def test_a_checkpoint_that_a_run_stands_on_outlives_its_overwriting(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r", kind="sampler_weights")
        await new_run(service, "r2", model="fettle://r/sampler_weights/c")
        first = service.checkpoint(ME, "r/sampler_weights/c").path
        await saved(service, "r", kind="sampler_weights", overwrite=True)
        await service._later.close(patience_s=5)
        await service._checkpoints.tidy()
        assert first in folders(machine, "r/sampler_weights")
    async with machine.service() as service:
        await trained(service, "r2")
        await service.set_state(ME, "r2", "completed")
        await service._checkpoints.tidy()
        assert folders(machine, "r/sampler_weights") == [service.checkpoint(ME, "r/sampler_weights/c").path]


async def test_an_overwriting_that_was_answered_is_there_after_a_crash(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        first = (await saved(service, "r")).answer
        await trained(service, "r")
        away = asyncio.Event()
        service._later.post(away.wait)  # what is written later has not been when the power is lost
        second = (await saved(service, "r", overwrite=True)).answer
        assert second.digest != first.digest
        await service.broker.written_down("r")
        machine.lose_power()
        away.set()
    machine.come_back()
    async with machine.service() as service:
        entry = service.checkpoint(ME, "r/weights/c")
        assert (entry.digest, entry.policy_version, entry.path) == (second.digest, 1, second.path)
        await service._later.close(patience_s=5)
        assert [(row.id, row.digest) for row in await service.store.checkpoints()] == [("r/weights/c", second.digest)]
        await service._checkpoints.tidy()
        assert folders(machine, "r/weights") == [second.path]


async def test_a_save_that_was_acknowledged_is_in_the_catalogue_after_a_crash(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await service.broker.snapshot_all()
        held = await Held(service).begun()
        promise = await service.save(ME, "r", None, None, kind="weights", name="c")
        await promise.durable()
        machine.lose_power()
        held.release()
    machine.come_back()
    async with machine.service() as service:
        assert (await service.promise(ME, promise.id).result()).digest
        await until(lambda: service._checkpoints.of(ME.tenant))
        assert service.checkpoint(ME, "r/weights/c").digest
    async with machine.service() as service:
        assert service.checkpoint(ME, "r/weights/c").digest


async def test_two_savings_of_one_name_may_follow_each_other_at_once(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        held = await Held(service).begun()
        both = [
            await service.save(ME, "r", None, None, kind="weights", name="c", overwrite=True, metadata={"nth": nth})
            for nth in ("first", "second")
        ]
        again = await service.save(ME, "r", 0, 0, kind="weights", name="c", overwrite=True)
        assert again is both[0]
        held.release()
        for promise in both:
            await promise.result()
        await until(lambda: service.checkpoint(ME, "r/weights/c").metadata == {"nth": "second"})


async def test_a_save_that_is_refused_or_fails_leaves_nothing_in_the_catalogue(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        with pytest.raises(SequenceError):
            await service.save(ME, "r", 7, 0, kind="weights", name="c")
        held = await Held(service).begun()
        promise = await service.save(ME, "r", None, None, kind="weights", name="d")
        assert promise.cancel()
        held.release()
        await promise.settled()
        await asyncio.sleep(0)
        await service._later.close(patience_s=5)
        assert await service.store.checkpoints() == []
        await saved(service, "r", name="d")
        assert service.checkpoint(ME, "r/weights/d").digest


class HeldFiles(LocalFileSystem):
    """A store into which nothing gets any further until it is released."""

    protocol = "held"
    begun, go_on = threading.Event(), threading.Event()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("held://"))

    def put_file(self, *args, **kwargs):
        super().put_file(*args, **kwargs)
        self.begun.set()
        self.go_on.wait(20)


async def test_a_checkpoint_overwritten_while_it_is_copied_is_copied_again(machine, tmp_path):
    fsspec.register_implementation("held", HeldFiles, clobber=True)
    async with machine.service(artifacts_url=f"held://{tmp_path}/store") as service:
        await new_run(service, "r")
        await saved(service, "r")
        await until(HeldFiles.begun.is_set)
        await trained(service, "r")
        second = (await saved(service, "r", overwrite=True)).answer
        HeldFiles.go_on.set()
        await until(lambda: service.checkpoint(ME, "r/weights/c").stored_at)
        manifest = (tmp_path / "store/r/weights/c/manifest.json").read_bytes()
        assert hashlib.sha256(manifest).hexdigest() == second.digest == service.checkpoint(ME, "r/weights/c").digest


class AwayFiles(LocalFileSystem):
    """A store that has no room for one checkpoint."""

    protocol = "away"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("away://"))

    def put_file(self, lpath, rpath, **kwargs):
        if "/big/" in rpath:
            raise OSError(28, "No space left on device")
        super().put_file(lpath, rpath, **kwargs)


async def test_one_checkpoint_that_cannot_be_copied_keeps_no_other_from_it(machine, tmp_path, monkeypatch):
    monkeypatch.setattr("fettle.service.core.LAST_WRITES_S", 0.1)  # it is tried until the service ends
    fsspec.register_implementation("away", AwayFiles, clobber=True)
    async with machine.service(artifacts_url=f"away://{tmp_path}/store") as service:
        await new_run(service, "r")
        for name in ("big", "small"):
            await saved(service, "r", name=name)
        await until(lambda: service.checkpoint(ME, "r/weights/small").stored_at)
        assert service.checkpoint(ME, "r/weights/big").stored_at is None


async def test_going_on_from_a_checkpoint_again_is_the_same_promise_even_if_it_is_gone(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r")
        await new_run(service, "other")

        async def all_again() -> list[Promise]:
            return [
                await service.load_run(ME, "r/weights/c", optimizer=True, run_id="loaded"),
                await service.restore(ME, "other", 0, 0, "fettle://r/weights/c", optimizer=True),
            ]

        first = await all_again()
        for promise in first:
            await promise.result()
        await saved(service, "r", overwrite=True)
        assert await all_again() == first
        await service.delete_checkpoint(ME, "r/weights/c")
        assert await all_again() == first
        with pytest.raises(SequenceError):
            await service.restore(ME, "other", 0, 0, "r/weights/c", optimizer=False)
        with pytest.raises(NotFoundError):
            await service.load_run(ME, "r/weights/c", optimizer=True, run_id="later")


async def test_a_sampler_that_cannot_be_drawn_from_after_one_start_can_be_after_the_next(machine):
    asked = [SampleRequest([1], 1, SamplingParams(max_tokens=2))]
    folder = machine.state / "checkpoints/r/sampler_weights"
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r", kind="sampler_weights")
        opened = await service.open_sampler(ME, checkpoint="r/sampler_weights/c")
        await until(lambda: service.checkpoint(ME, "r/sampler_weights/c").nbytes)
    folder.rename(folder.with_name("away"))
    async with machine.service() as service:
        with pytest.raises(FettleError):
            await service.draw(ME, "one", opened.id, asked).result()
    folder.with_name("away").rename(folder)
    async with machine.service() as service:
        assert len(await service.draw(ME, "two", opened.id, asked).result()) == 1
