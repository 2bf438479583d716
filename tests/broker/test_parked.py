"""A parked policy that cannot be taken back for a while loses none of the operations that wait for it."""

import asyncio

import pytest

from fettle.broker import snapshots
from fettle.calls import Forward
from fettle.config import CausalLM, PolicySpec
from fettle.errors import EngineError, StorageError
from tests.broker.processes import STEP, call, data, done, opened
from tests.broker.tallies import TallyBackend


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), EngineError("there is no memory")])
@pytest.mark.parametrize("by_itself", [False, True])
async def test_operations_wait_in_their_order_until_it_is_back(started, monkeypatch, error, by_itself):
    monkeypatch.setattr(snapshots, "REVIVED_AGAIN", 0.05 if by_itself else 1000.0)
    one = await started()
    opened(one)
    await done(one, call(1))
    await one.broker.park("run")
    revive = one.backend.revive
    refused = []

    def fails(*_: object) -> None:
        refused.append(error)
        raise error

    monkeypatch.setattr(one.backend, "revive", fails)
    one.backend.done.clear()
    waiting = [one.broker.submit("run", 0, 1, call(2)), one.broker.submit("run", 0, 2, call(3))]
    while not one.broker._desk.logs["run"].held:
        await one.broker.run(lambda: None)
    with pytest.raises(StorageError, match="could not be written down"):
        await one.broker.written_down("run")
    cancelled = one.broker.submit("run", 0, 3, call(4))
    assert cancelled.cancel()
    assert not any(promise.done for promise in waiting)
    waiting.append(one.broker.submit("run", 0, 4, Forward(data(5), CausalLM())))
    monkeypatch.setattr(one.backend, "revive", revive)
    if not by_itself:
        waiting.append(one.broker.submit("run", 0, 5, STEP))
        await one.broker.run(lambda: None)
        one.broker._desk.snapshots._try_again(one.broker._desk.logs["run"])
    for promise in waiting:
        await promise.result(timeout=20)
    assert refused
    assert one.backend.done[:3] == ["revive run", "forward_backward run", "forward_backward run"]
    expected = one.tally()
    two = await started()
    assert two.tally() == expected


async def test_operations_before_their_turn_do_not_keep_a_policy_in_memory_nor_anybody_waiting(started):
    one = await started()
    opened(one)
    await done(one, call(1))
    early = one.broker.submit("run", 0, 2, call(3))
    async with asyncio.timeout(20):
        await one.broker.drained()
        await one.broker.park("run")
    assert not one.backend.policies
    assert not early.done
    two = await started()
    assert two.broker.policies()["run"].parked
    await done(two, call(2), first=1)
    await two.broker.drained()
    straight = TallyBackend(one.folder / "straight")
    straight.create_policy("run", PolicySpec(model="model"))
    for n in (1, 2, 3):
        straight.forward_backward("run", data(n), CausalLM())
    assert two.tally() == straight.policies["run"]["tally"]
