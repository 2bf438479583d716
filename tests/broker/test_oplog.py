"""The doors of the broker: in order, exactly once, and a refused call uses up its number."""

import asyncio
import gc
import random
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from fettle.broker import Broker, Promise, answers
from fettle.calls import Call, Close, Create, Forward, ForwardBackward, OptimStep, Pin
from fettle.config import AdamW, CausalLM, JournalSettings, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.errors import CancelledError, ConfigError, LossInputError, ModelError, NotFoundError, SequenceError
from fettle.errors import TimeoutError as LateError
from fettle.types import Datum, datum
from tests.broker.tallies import REFUSED, TallyBackend

SPEC = PolicySpec(model="model")
REQUEST = SampleRequest([1, 2], 2, SamplingParams(max_tokens=4))


def data(*tokens: int) -> list[Datum]:
    return [datum([1, *tokens], [0] + [1] * len(tokens))]


def call(n: int) -> ForwardBackward:
    return ForwardBackward(data(n), CausalLM())


@pytest.fixture
def backend(tmp_path: Path) -> TallyBackend:
    return TallyBackend(tmp_path / "checkpoints")


@pytest.fixture
def tallied(backend: TallyBackend) -> Iterator[Broker]:
    """A broker with one policy, ``run``."""
    broker = Broker(backend)
    yield broker
    backend.open_gate.set()
    broker.close()


def opened(broker: Broker, name: str = "run", *, seed: int = 0) -> Promise:
    return broker.open(name, Create(PolicySpec(model="model", seed=seed)))


def tally(backend: TallyBackend) -> str:
    return backend.policies["run"]["tally"]


async def straight(tmp_path: Path, calls: list[Call]) -> str:
    """The tally after these calls, each made when the one before was done."""
    backend = TallyBackend(tmp_path / "straight")
    broker = Broker(backend)
    opened(broker)
    for seq, each in enumerate(calls):
        await asyncio.wait([asyncio.ensure_future(broker.submit("run", 0, seq, each).result())])
    broker.close()
    return tally(backend)


async def test_operations_run_in_the_order_of_their_numbers_whatever_order_they_come_in(tallied, backend, tmp_path):
    calls = [call(n) for n in range(4)]
    opened(tallied)
    promises = {seq: tallied.submit("run", 0, seq, calls[seq]) for seq in (2, 0, 3, 1)}
    await asyncio.gather(*(promise.result() for promise in promises.values()))
    assert tally(backend) == await straight(tmp_path, calls)


async def test_the_same_operation_again_gets_the_same_promise_and_no_second_effect(tallied, backend):
    opened(tallied)
    first = tallied.submit("run", 0, 0, call(1))
    assert tallied.submit("run", 0, 0, call(1)) is first
    await first.result()
    assert tallied.submit("run", 0, 0, call(1)) is first
    assert tallied.promise("run.0.0") is first
    assert backend.done.count("forward_backward run") == 1


async def test_a_number_used_for_something_else_is_refused(tallied, backend):
    opened(tallied)
    await tallied.submit("run", 0, 0, call(1)).result()
    with pytest.raises(SequenceError, match="operation 0 was sent before with different contents"):
        tallied.submit("run", 0, 0, call(2))
    assert backend.done.count("forward_backward run") == 1


async def test_a_hash_that_the_sender_gives_is_what_an_operation_is_known_by(tallied):
    opened(tallied)
    first = tallied.submit("run", 0, 0, call(1), digest="one")
    assert tallied.submit("run", 0, 0, call(1), digest="one") is first
    with pytest.raises(SequenceError, match="different contents"):
        tallied.submit("run", 0, 0, call(1), digest="two")


async def test_a_refused_call_uses_up_its_number_and_its_error_is_its_answer(tallied):
    opened(tallied)
    bad, good = tallied.submit("run", 0, 0, call(REFUSED)), tallied.submit("run", 0, 1, call(1))
    assert (await good.result()).num_tokens == 2
    for _ in range(2):
        with pytest.raises(LossInputError, match="is refused"):
            await bad.result()
        bad = tallied.submit("run", 0, 0, call(REFUSED))


async def test_a_gap_is_waited_for(tallied):
    opened(tallied)
    later = tallied.submit("run", 0, 1, call(1))
    with pytest.raises(LateError, match=r"run\.0\.1 has no answer yet"):
        await later.result(timeout=0.01)
    tallied.submit("run", 0, 0, call(0))
    assert (await later.result()).num_tokens == 2


async def test_a_newer_holder_shuts_out_the_older_and_counts_from_zero(tallied):
    opened(tallied)
    sent, stranded = tallied.submit("run", 0, 0, call(1)), tallied.submit("run", 0, 2, call(2))
    assert await tallied.attach("run") == 1
    with pytest.raises(SequenceError, match=r"incarnation 0 .* load the policy again"):
        tallied.submit("run", 0, 1, call(1))
    assert (await sent.result()).num_tokens == 2
    with pytest.raises(SequenceError, match="never came its turn"):
        await stranded.result()
    assert (await tallied.submit("run", 1, 0, call(1)).result()).num_tokens == 2
    assert tallied.policies()["run"].next_seq == 1


async def test_what_was_acknowledged_is_kept_no_longer(tallied):
    opened(tallied)
    promise = tallied.submit("run", 0, 0, call(1))
    await promise.result()
    promise.acknowledge()
    with pytest.raises(NotFoundError, match="acknowledged"):
        tallied.promise("run.0.0")
    with pytest.raises(SequenceError, match="answer of operation 0 is no longer kept"):
        tallied.submit("run", 0, 0, call(1))


async def test_old_answers_make_room_for_new_ones_and_the_newest_stay(monkeypatch):
    monkeypatch.setattr(answers, "SURE", 2)
    forgotten: list[str] = []
    kept = answers.Answers(JournalSettings(answers_mib=1), lambda promise: forgotten.append(promise.id))
    for n in range(4):
        promise = Promise(f"p.0.{n}", policy="p", tenant="", kind="forward", tokens=0, said="", keeping=None)
        promise.settle(LossInputError("x" * 400_000))
        kept.keep(promise)
    assert forgotten == ["p.0.0", "p.0.1"]


async def test_a_batch_is_let_go_once_its_operation_is_done(tallied):
    opened(tallied)
    batch = data(1, 2, 3)
    held = weakref.ref(batch[0].tokens)
    promise = tallied.submit("run", 0, 0, ForwardBackward(batch, CausalLM()))
    del batch
    await promise.result()
    await tallied.submit("run", 0, 1, OptimStep(AdamW())).result()
    gc.collect()
    assert held() is None
    assert tallied.submit("run", 0, 0, ForwardBackward(data(1, 2, 3), CausalLM())) is promise


async def test_a_caller_that_gives_up_does_not_take_the_answer_from_one_that_asks_again(tallied, backend):
    opened(tallied)
    backend.open_gate.clear()
    promise = tallied.submit("run", 0, 0, Forward(data(1), CausalLM()))
    first = asyncio.ensure_future(promise.result())
    await asyncio.sleep(0.01)
    first.cancel()
    backend.open_gate.set()
    assert (await promise.result()).num_tokens == 2


async def test_an_operation_that_waits_can_be_cancelled_and_one_that_runs_cannot(tallied, backend, tmp_path):
    opened(tallied)
    backend.open_gate.clear()
    running = tallied.submit("run", 0, 0, Forward(data(1), CausalLM()))
    waiting, after = tallied.submit("run", 0, 1, call(1)), tallied.submit("run", 0, 2, call(2))
    await asyncio.to_thread(backend.at_gate.wait, 60)
    assert not running.cancel()
    assert waiting.cancel()
    backend.open_gate.set()
    with pytest.raises(CancelledError, match="was cancelled"):
        await waiting.result()
    await after.result()
    assert tally(backend) == await straight(tmp_path, [call(2)])


async def test_the_same_name_and_call_open_one_policy_and_another_call_is_refused(tallied):
    first = opened(tallied)
    assert opened(tallied) is first
    with pytest.raises(SequenceError, match="opened before by another call"):
        opened(tallied, seed=1)
    with pytest.raises(ConfigError, match="cannot be called"):
        opened(tallied, "../run")


async def test_a_policy_that_could_not_be_made_is_none(tallied):
    made = tallied.open("run", Create(PolicySpec(model="none")))
    with pytest.raises(ModelError):
        await made.result()
    with pytest.raises(NotFoundError):
        tallied.submit("run", 0, 0, call(1))
    assert not tallied.policies()
    made.acknowledge()
    await tallied.open("other", Create(SPEC)).result()


async def test_the_answer_of_close_can_be_asked_for_again(tallied):
    opened(tallied)
    closed = tallied.submit("run", 0, 0, Close())
    assert await closed.result() is None
    assert tallied.submit("run", 0, 0, Close()) is closed
    with pytest.raises(NotFoundError, match="closed, or never made"):
        tallied.submit("run", 0, 1, call(1))


async def test_a_draw_follows_its_pin_and_its_key_gives_the_same_promise_again(tallied, backend):
    opened(tallied)
    pin = tallied.submit("run", 0, 0, Pin())
    drawn = tallied.draw("key", pin.id, [REQUEST, REQUEST])
    assert tallied.draw("key", pin.id, [REQUEST, REQUEST]) is drawn
    completions = await drawn.result()
    assert len(completions) == 4
    assert drawn.tokens == 16
    with pytest.raises(SequenceError, match="different contents"):
        tallied.draw("key", pin.id, [REQUEST])
    tallied.release(pin.id)
    with pytest.raises(NotFoundError, match="was released"):
        tallied.draw("another", pin.id, [REQUEST])


async def test_weights_that_are_let_go_while_they_are_drawn_from_go_afterwards(tallied, backend):
    opened(tallied)
    pin = tallied.submit("run", 0, 0, Pin())
    await pin.result()
    drawn = tallied.draw("key", pin.id, [REQUEST])
    tallied.release(pin.id)
    assert len(await drawn.result()) == 2
    await tallied.run(lambda: None)
    assert not backend.pins


async def test_a_draw_that_is_cancelled_draws_no_further(tallied):
    seen: list[int] = []

    def watch(index: int, token: int, logprob: float) -> bool:
        seen.append(token)
        if len(seen) == 3:
            asyncio.run_coroutine_threadsafe(cancelled(), loop).result()
        return True

    async def cancelled() -> None:
        assert drawn.cancel()

    loop = asyncio.get_running_loop()
    drawn = tallied.draw("key", "model", [SampleRequest([1], 1, SamplingParams(max_tokens=1000), watch)])
    with pytest.raises(CancelledError):
        await drawn.result()
    await tallied.run(lambda: None)
    assert len(seen) == 3


async def test_any_interleaving_of_submitting_and_awaiting_is_strictly_first_in_first_out(tmp_path):
    """Twenty random programs of 40 calls, out of order, sent twice, awaited or not, refused now and then."""
    for seed in range(20):
        rng = random.Random(f"interleaving/{seed}")
        calls = [rng.choice([call(n), call(REFUSED), OptimStep(AdamW(), empty=True), Pin()]) for n in range(40)]
        backend = TallyBackend(tmp_path / "scratch")
        broker = Broker(backend)
        opened(broker)
        left = list(range(40))
        while left:
            seq = left.pop(rng.randrange(min(4, len(left))))
            promise = broker.submit("run", 0, seq, calls[seq])
            if rng.random() < 0.3:
                assert broker.submit("run", 0, seq, calls[seq]) is promise
            if rng.random() < 0.3 and (not left or left[0] > seq):
                await asyncio.wait([asyncio.ensure_future(promise.result())])
        await broker.drained()
        assert tally(backend) == await straight(tmp_path, calls)
        broker.close()
