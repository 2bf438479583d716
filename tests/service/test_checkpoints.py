"""Checkpoints: what was answered is there after a crash, and what somebody stands on is not taken away."""

import os
from pathlib import Path

import pytest

from fettle.service.callers import ANYBODY as ME
from tests.service.inside import Machine, new_run, saved, trained


@pytest.fixture
def machine(tmp_path: Path, tiny_model: str) -> Machine:
    return Machine(tmp_path, tiny_model)


async def test_a_checkpoint_that_a_run_stands_on_outlives_its_overwriting(machine):
    async with machine.service() as service:
        await new_run(service, "r")
        await saved(service, "r", kind="sampler_weights")
        await new_run(service, "r2", model="fettle://r/sampler_weights/c")
        first = service.checkpoint(ME, "r/sampler_weights/c").path
        await saved(service, "r", kind="sampler_weights", overwrite=True)
        await service._later.close(patience_s=5)
        await service._checkpoints.tidy()
        assert Path(first).is_dir()
    async with machine.service() as service:
        await trained(service, "r2")
        await service.set_state(ME, "r2", "completed")
        await service._checkpoints.tidy()
        assert os.listdir(machine.state / "checkpoints/r/sampler_weights") == [
            Path(service.checkpoint(ME, "r/sampler_weights/c").path).name
        ]
