"""The op log: in order, exactly once, and a refused call uses up its number."""

import asyncio
import gc
import weakref

import numpy as np
import pytest

from fettle.broker import Broker, Operation, OpLog, digest
from fettle.broker import oplog as module
from fettle.config import AdamW, LocalEngine
from fettle.engine.local import LocalBackend
from fettle.errors import EngineError, SequenceError
from fettle.types import Datum, ForwardResult, datum


class Recorder:
    """Operations that note when they are carried out."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def operation(self, seq: int, *, said: str | None = None, fails: bool = False, incarnation: int = 0) -> Operation:
        async def work() -> int:
            self.done.append(seq)
            if fails:
                raise EngineError(f"operation {seq} broke")
            return seq * 10

        return Operation(incarnation, seq, lambda: said or f"said {seq}", work)


async def test_operations_run_in_the_order_of_their_numbers_whatever_order_they_come_in():
    recorder, log = Recorder(), OpLog()
    futures = [log.submit(recorder.operation(seq)) for seq in (2, 0, 3, 1)]
    assert await asyncio.gather(*futures) == [20, 0, 30, 10]
    assert recorder.done == [0, 1, 2, 3]


async def test_the_same_operation_again_gets_the_same_answer_and_no_second_effect():
    recorder, log = Recorder(), OpLog()
    first = log.submit(recorder.operation(0))
    again = log.submit(recorder.operation(0))
    assert await first == await again == await log.submit(recorder.operation(0)) == 0
    assert recorder.done == [0]


async def test_a_number_used_for_something_else_is_refused():
    recorder, log = Recorder(), OpLog()
    await log.submit(recorder.operation(0))
    with pytest.raises(SequenceError, match="operation 0 was sent before with different contents"):
        log.submit(recorder.operation(0, said="something else"))
    assert recorder.done == [0]


async def test_a_refused_call_uses_up_its_number_and_its_error_is_its_answer():
    recorder, log = Recorder(), OpLog()
    bad, good = log.submit(recorder.operation(0, fails=True)), log.submit(recorder.operation(1))
    assert await good == 10
    for _ in range(2):
        with pytest.raises(EngineError, match="operation 0 broke"):
            await bad
        bad = log.submit(recorder.operation(0, fails=True))
    assert recorder.done == [0, 1]


async def test_a_gap_is_waited_for():
    recorder, log = Recorder(), OpLog()
    later = log.submit(recorder.operation(1))
    await asyncio.sleep(0.01)
    assert recorder.done == []
    log.submit(recorder.operation(0))
    assert await later == 10


async def test_an_older_holder_is_shut_out():
    recorder, log = Recorder(), OpLog()
    assert log.fence() == 1
    with pytest.raises(SequenceError, match=r"incarnation 0 .* load the policy again"):
        log.submit(recorder.operation(0))
    assert await log.submit(recorder.operation(0, incarnation=1)) == 0


async def test_an_answer_long_gone_is_refused_not_repeated(monkeypatch):
    monkeypatch.setattr(module, "RESULTS_KEPT", 2)
    recorder, log = Recorder(), OpLog()
    for seq in range(5):
        await log.submit(recorder.operation(seq))
    with pytest.raises(SequenceError, match="answer of operation 0 is no longer kept"):
        log.submit(recorder.operation(0))
    assert await log.submit(recorder.operation(4)) == 40
    assert recorder.done == [0, 1, 2, 3, 4]


async def test_large_answers_make_room_for_newer_ones_and_the_newest_stay(monkeypatch):
    monkeypatch.setattr(module, "RESULTS_BYTES", 10_000)
    monkeypatch.setattr(module, "RESULTS_SURE", 2)
    log = OpLog()

    def operation(seq: int, tokens: int) -> Operation:
        async def work() -> ForwardResult:
            return ForwardResult(float(seq), {}, [np.zeros(tokens, np.float32)], tokens)

        return Operation(0, seq, lambda: f"said {seq}", work)

    tokens = [500, 1000, 1500, 9000]
    for seq, count in enumerate(tokens[:3]):
        await log.submit(operation(seq, count))
    with pytest.raises(SequenceError, match="answer of operation 0 is no longer kept"):
        log.submit(operation(0, 500))
    assert (await log.submit(operation(1, 1000))).loss == 1
    await log.submit(operation(3, 9000))
    assert (await log.submit(operation(2, 1500))).loss == 2
    with pytest.raises(SequenceError, match="answer of operation 1"):
        log.submit(operation(1, 1000))


async def test_of_large_batches_only_the_newest_is_held_and_the_answers_are_as_they_were(monkeypatch):
    monkeypatch.setattr(module, "RESULTS_BYTES", 10_000)
    log, held = OpLog(), []

    class Batch:
        """What a digest and a call hold on to."""

    def operation(seq: int, said: str = "") -> Operation:
        batch = Batch()
        held.append(weakref.ref(batch))

        async def work(batch: Batch = batch) -> int:
            return seq * 10

        def told(batch: Batch = batch) -> str:
            return said or f"said {seq}"

        return Operation(0, seq, told, work, nbytes=6000)

    for seq in range(4):
        assert await log.submit(operation(seq)) == seq * 10
    gc.collect()
    assert [batch() is not None for batch in held] == [False, False, False, True]
    assert [await log.submit(operation(seq)) for seq in range(4)] == [0, 10, 20, 30]
    with pytest.raises(SequenceError, match="operation 1 was sent before with different contents"):
        log.submit(operation(1, said="something else"))


def test_a_digest_is_of_numbers_not_of_the_order_of_their_bytes():
    def said(order: str) -> str:
        return digest("forward", [Datum(np.array([1, 2], f"{order}i4"), np.array([0, 1], f"{order}f4"), {})])

    assert said("<") == said(">")


def test_a_digest_depends_on_everything_a_call_says():
    one = datum([1, 2], [0, 1], advantages=[0, 1])
    calls = [
        digest("forward", [one], AdamW()),
        digest("forward_backward", [one], AdamW()),
        digest("forward", [one, one], AdamW()),
        digest("forward", [datum([1, 3], [0, 1], advantages=[0, 1])], AdamW()),
        digest("forward", [datum([1, 2], [0, 1], advantages=[0, 2])], AdamW()),
        digest("forward", [datum([1, 2], [0, 1], rewards=[0, 1])], AdamW()),
        digest("forward", [datum([1, 2], [0, 1], temperature=0.5, advantages=[0, 1])], AdamW()),
        digest("forward", [datum([1, 2], [0, 0], advantages=[0, 1])], AdamW()),
        digest("forward", [datum([1, 2], [0, 1], group="a", advantages=[0, 1])], AdamW()),
        digest("forward", [datum([1, 2], [0, 1], scalars={"weight": 2.0}, advantages=[0, 1])], AdamW()),
        digest("forward", [one], AdamW(beta1=0.5)),
    ]
    assert len(set(calls)) == len(calls)
    assert digest("forward", [datum([1, 2], [0, 1], advantages=[0, 1])], AdamW()) == calls[0]


def test_a_digest_knows_where_one_array_ends_and_of_what_type_it_is():
    def said(*rows: list[float], type: str = "f4") -> str:
        tokens, mask = np.array([1, 2, 3], np.int32), np.array([0, 1, 1], np.float32)
        streams = [{"advantages": np.array(row, type)} for row in rows]
        return digest("forward", [Datum(tokens, mask, stream) for stream in streams])

    assert said([0, 0, 1], [1, 0, 0]) != said([0, 0, 1], [0, 1, 0])
    assert said([0, 0, 1]) != said([0, 0, 1], type="f8")
    one, other = (datum([1, 2], [0, 1], **{first: [1, 2], second: [1, 2]}) for first, second in ("ab", "ba"))
    assert digest("forward", [one]) == digest("forward", [other])


async def test_a_caller_that_gives_up_does_not_take_the_answer_from_one_that_asks_again(tmp_path):
    """Through the broker's own door, as a server's handler whose client went away."""
    broker, recorder, release = Broker(LocalBackend(LocalEngine(), checkpoints=tmp_path)), Recorder(), asyncio.Event()
    broker._logs["policy"] = OpLog()

    async def slow() -> int:
        await release.wait()
        recorder.done.append(0)
        return 7

    operation = Operation(0, 0, lambda: "said 0", slow)
    first = asyncio.ensure_future(broker.submit("policy", operation))
    await asyncio.sleep(0.01)
    first.cancel()
    again = asyncio.ensure_future(broker.submit("policy", operation))
    release.set()
    assert await again == 7
    assert recorder.done == [0]
    broker.close()
