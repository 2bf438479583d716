from dataclasses import replace

import pytest

from fettle.config import LocalEngine, LoRA, PolicySpec
from fettle.engine.base import Capabilities
from fettle.engine.local import LocalBackend
from fettle.errors import BusyError, ModelError
from fettle.service.capacity import GIB, USABLE, Room, fits, fits_share

GPU = Capabilities("local", "cuda", (), (), threads=1, memory_bytes=80 * GIB)


@pytest.mark.parametrize(("needed", "used"), [(0, 0), (72, 0), (36, 36), (1, 71)])
def test_what_has_room_is_let_in(needed, used):
    fits(GPU, needed * GIB, used * GIB)


@pytest.mark.parametrize("used", [0, 40])
def test_what_never_fits_is_refused_for_good(used):
    with pytest.raises(ModelError, match=r"needs 73\.0 GiB, and cuda has 72\.0"):
        fits(GPU, 73 * GIB, used * GIB)


def test_what_others_are_in_the_way_of_is_told_to_come_again():
    with pytest.raises(BusyError, match=r"32\.0 of 72\.0 GiB are free") as refused:
        fits(GPU, 40 * GIB, 40 * GIB)
    assert refused.value.retry_after > 0


@pytest.mark.parametrize(("needed", "own"), [(72, 0), (18, 18), (1, 35)])
def test_a_tenant_has_its_share_and_a_single_run_the_whole_device(needed, own):
    fits_share(GPU, needed * GIB, own * GIB, 0.5)


def test_beyond_its_share_a_tenant_is_told_the_limit_and_the_mend():
    with pytest.raises(BusyError, match=r"36\.0 of 72\.0 GiB together: pause or complete one") as refused:
        fits_share(GPU, 17 * GIB, 20 * GIB, 0.5)
    assert refused.value.retry_after > 0


def test_a_device_that_is_not_here_refuses_nothing():
    fits(replace(GPU, memory_bytes=0), 10**15, 0)
    fits_share(replace(GPU, memory_bytes=0), 10**15, 10**15, 0.1)


async def test_room_is_what_the_engine_says_that_policies_take(tiny_model, tmp_path):
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    whole, adapter = PolicySpec(model=tiny_model), PolicySpec(model=tiny_model, lora=LoRA(rank=2))
    memory = int(2.5 * backend.policy_bytes(whole) / USABLE)
    room = Room(replace(backend.capabilities(), memory_bytes=memory), backend.policy_bytes)
    await room.check(whole, [whole])
    await room.check(adapter, [whole, adapter])
    with pytest.raises(BusyError, match="pause or complete another"):
        await room.check(whole, [whole, whole])
    with pytest.raises(ModelError, match="train an adapter"):
        await Room(replace(GPU, memory_bytes=1000), backend.policy_bytes).check(whole, [])
