"""A number is used once, and one whose operation will not be carried out does not stand in the way."""

import pytest

from fettle.broker.oplog import MOST_AHEAD
from fettle.calls import Forward
from fettle.config import CausalLM
from fettle.errors import BusyError, CancelledError, SequenceError
from tests.broker.processes import SETTINGS, Process, call, data, done, opened

LARGE = Forward(data(*range(1000, 2000)), CausalLM())


async def one_cancelled(process: Process) -> None:
    """Operation 1 is cancelled before operation 0 has come."""
    await opened(process).result()
    assert process.broker.submit("run", 0, 1, call(2)).cancel()


@pytest.mark.parametrize("restarts", [0, 1, 2])
@pytest.mark.parametrize("acknowledged", [False, True])
async def test_a_number_that_was_cancelled_out_of_turn_is_stepped_over(started, restarts, acknowledged):
    process = await started()
    await one_cancelled(process)
    if acknowledged:
        process.broker.promise("run.0.1").acknowledge()
        process.broker._ledger.flush()
    for _ in range(restarts):
        process = await started()
    last = process.broker.submit("run", 0, 2, call(3))
    if acknowledged:
        with pytest.raises(SequenceError, match="no longer kept"):
            process.broker.submit("run", 0, 1, call(9))
    else:
        with pytest.raises(CancelledError):
            await process.broker.submit("run", 0, 1, call(2)).result()
    await done(process, call(1))
    await last.result(timeout=20)
    assert process.backend.done.count("forward_backward run") == 2
    expected = process.tally()
    process = await started()
    assert (process.tally(), process.broker.policies()["run"].next_seq) == (expected, 3)


async def test_it_stays_used_up_when_the_files_that_said_so_are_gone(started):
    settings = SETTINGS.model_copy(update={"segment_mib": 1})
    process = await started(settings)
    await one_cancelled(process)
    process.broker.promise("run.0.1").acknowledge()
    opened(process, "other")
    for n in range(600):
        promise = process.broker.submit("other", 0, n, LARGE)
        await promise.settled()
        promise.acknowledge()
    await process.broker.snapshot_all()
    process.broker._desk.compact()
    assert process.broker._journal.segments[0] > 1
    process = await started(settings)
    last = process.broker.submit("run", 0, 2, call(3))
    await done(process, call(1))
    await last.result(timeout=20)


async def test_numbers_that_are_used_out_of_turn_are_few(started):
    process = await started()
    await opened(process).result()
    for seq in range(1, MOST_AHEAD + 1):
        assert process.broker.submit("run", 0, seq, call(1)).cancel()
    with pytest.raises(BusyError, match="send that first"):
        process.broker.submit("run", 0, MOST_AHEAD + 1, call(1))
    await done(process, call(1))
    assert process.broker.policies()["run"].next_seq == MOST_AHEAD + 1
    await done(process, call(2), first=MOST_AHEAD + 1)
