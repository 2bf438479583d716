"""Limits on what waits: of a tenant, of all, and what is said to those who are turned away."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.broker import Broker, Promise
from fettle.broker.admission import Admission
from fettle.calls import Call, Close, Create, Forward, ForwardBackward
from fettle.config import CausalLM, PolicySpec, Scheduling
from fettle.errors import BusyError
from fettle.types import datum
from tests.broker.tallies import TallyBackend

MIB = 1 << 20


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def admission(clock):
    chosen = Scheduling(waiting_operations=8, waiting_draws=4, waiting_mib=10, tenant_share=0.5)
    return Admission(chosen, clock=clock)


def admit(admission: Admission, tenant: str, *, nbytes: int = 0, drawing: bool = False) -> None:
    admission.admit(tenant, tokens=1, nbytes=nbytes, drawing=drawing)


def release(admission: Admission, tenant: str, *, nbytes: int = 0, drawing: bool = False) -> None:
    admission.release(tenant, tokens=1, nbytes=nbytes, drawing=drawing)


def admitted(admission: Admission, tenant: str, **call: object) -> int:
    """How many of a call are let in, one after another, before one is turned away."""
    for count in range(100):
        try:
            admit(admission, tenant, **call)
        except BusyError:
            return count
    raise AssertionError("nothing is ever turned away")


def test_a_tenant_alone_may_fill_every_place(admission):
    assert admitted(admission, "a") == 8
    assert admitted(admission, "a", drawing=True) == 4


def test_a_place_that_comes_free_is_filled_again(admission):
    admitted(admission, "a")
    release(admission, "a")
    assert admitted(admission, "a") == 1


def test_while_another_waits_a_tenant_gets_its_share(admission):
    admit(admission, "b")
    assert admitted(admission, "a") == 4


def test_bodies_that_wait_are_bounded_over_all_tenants(admission):
    assert admitted(admission, "a", nbytes=MIB) == 8
    assert admitted(admission, "b", nbytes=MIB) == 2
    assert admission.waiting.nbytes == 10 * MIB


def test_one_body_beyond_the_bound_is_let_in_where_nothing_waits(admission):
    admit(admission, "a", nbytes=11 * MIB)
    with pytest.raises(BusyError, match="11 MiB of calls wait already"):
        admit(admission, "b", nbytes=1)


def test_a_place_is_left_to_one_who_was_turned_away(admission, clock):
    for _ in range(5):
        admit(admission, "a", nbytes=2 * MIB)
    with pytest.raises(BusyError) as busy:
        admit(admission, "b", nbytes=MIB)
    release(admission, "a", nbytes=2 * MIB)
    with pytest.raises(BusyError):
        admit(admission, "a", nbytes=2 * MIB)
    clock.now += busy.value.retry_after
    admit(admission, "b", nbytes=MIB)


def test_nobody_waits_for_ever_for_one_who_does_not_come_again(admission, clock):
    for _ in range(5):
        admit(admission, "a", nbytes=2 * MIB)
    with pytest.raises(BusyError):
        admit(admission, "b", nbytes=MIB)
    release(admission, "a", nbytes=2 * MIB)
    clock.now += 100
    admit(admission, "a", nbytes=2 * MIB)


def test_when_to_come_again_is_what_the_recent_pace_says(admission, clock):
    for _ in range(4):
        admit(admission, "a")
    for _ in range(4):
        clock.now += 3.0
        release(admission, "a")
        admit(admission, "a")
    admitted(admission, "a")
    with pytest.raises(BusyError) as busy:
        admit(admission, "a")
    assert busy.value.retry_after == pytest.approx(3.0)
    assert "in about 3.0 s" in str(busy.value)


def test_idle_time_does_not_count_as_slowness_and_a_standstill_does(admission, clock):
    admit(admission, "a")
    clock.now += 2.0
    release(admission, "a")
    clock.now += 1000.0
    admitted(admission, "a")
    with pytest.raises(BusyError) as busy:
        admit(admission, "a")
    assert busy.value.retry_after == pytest.approx(2.0)
    clock.now += 30.0
    with pytest.raises(BusyError) as busy:
        admit(admission, "a")
    assert busy.value.retry_after == pytest.approx(32.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 3 * MIB), st.booleans()), max_size=120))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_and_goes_the_bounds_hold_and_nothing_is_left_over(steps):
    chosen = Scheduling(waiting_operations=6, waiting_draws=3, waiting_mib=8)
    admission = Admission(chosen, clock=Clock())
    held: list[tuple[str, int, bool]] = []
    for tenant, drawing, nbytes, leave in steps:
        if leave and held:
            whose, size, drew = held.pop(0)
            release(admission, whose, nbytes=size, drawing=drew)
            continue
        with suppress(BusyError):
            admit(admission, tenant, nbytes=nbytes, drawing=drawing)
            held.append((tenant, nbytes, drawing))
        assert admission.waiting.nbytes == sum(size for _, size, _ in held) <= 8 * MIB
        assert all(admission.waiting_of(name).operations <= 6 for name in "abc")
        assert all(admission.waiting_of(name).draws <= 3 for name in "abc")
    for whose, size, drew in held:
        release(admission, whose, nbytes=size, drawing=drew)
    assert admission.waiting.nothing
    assert (admission.waiting.tokens, admission.waiting.nbytes) == (0, 0)


def test_what_comes_before_its_turn_takes_a_share_of_the_places_only(admission):
    for _ in range(2):
        admission.admit("a", tokens=1, nbytes=MIB, drawing=False, early=True)
    with pytest.raises(BusyError, match="training calls wait already"):
        admission.admit("a", tokens=1, nbytes=0, drawing=False, early=True)
    with pytest.raises(BusyError, match="MiB of calls wait already"):
        admission.admit("b", tokens=1, nbytes=MIB, drawing=False, early=True)
    assert admitted(admission, "b", nbytes=MIB) == 4


def test_what_others_wait_for_is_let_in_however_many_do(admission):
    assert admitted(admission, "a", nbytes=MIB) == 8
    admission.admit("a", tokens=1, nbytes=20 * MIB, drawing=False, awaited=True)
    assert admission.waiting.operations == 9


def filled(broker: Broker, policy: str, call: Call) -> list[Promise]:
    """The call under number after number from 1 on, until one is turned away."""
    taken: list[Promise] = []
    with suppress(BusyError):
        taken.extend(broker.submit(policy, 0, seq, call) for seq in range(1, 100))
    return taken


@pytest.mark.parametrize("tenant", ["", "other"])
async def test_operations_before_their_turn_never_keep_out_the_one_that_is_missing(tmp_path, tenant):
    """Nor those of others."""
    backend = TallyBackend(tmp_path)
    broker = Broker(backend, scheduling=Scheduling(waiting_operations=8, waiting_mib=1))
    for name, owner in (("run", ""), ("another", tenant)):
        await broker.open(name, Create(PolicySpec(model="model")), tenant=owner).result()
    large = ForwardBackward([datum([1] * 5000, [0] + [1] * 4999)], CausalLM())
    taken = filled(broker, "run", large)
    assert 0 < len(taken) < 99
    assert not any(promise.done for promise in taken)
    await broker.submit("another", 0, 0, large).result()
    backend.open_gate.clear()
    assert len(filled(broker, "another", Forward(large.data, CausalLM()))) < 99
    missing = broker.submit("run", 0, 0, large)
    backend.open_gate.set()
    for promise in (missing, *taken):
        await promise.result()
    broker.close()


def test_beyond_the_memory_one_call_at_a_time_is_let_in_that_others_wait_for(admission):
    assert admitted(admission, "a", nbytes=4 * MIB) == 2
    admission.admit("a", tokens=1, nbytes=8 * MIB, drawing=False, awaited=True)
    for tenant in ("a", "b"):
        with pytest.raises(BusyError, match="MiB of calls wait already"):
            admission.admit(tenant, tokens=1, nbytes=8 * MIB, drawing=False, awaited=True)
    admission.admit("a", tokens=1, nbytes=0, drawing=False, awaited=True)
    release(admission, "a", nbytes=8 * MIB)
    admission.admit("b", tokens=1, nbytes=8 * MIB, drawing=False, awaited=True)


async def test_what_a_policy_holds_is_given_back_where_every_place_is_taken(tmp_path):
    backend = TallyBackend(tmp_path)
    broker = Broker(backend, scheduling=Scheduling(waiting_operations=2))
    await broker.open("run", Create(PolicySpec(model="model"))).result()
    backend.open_gate.clear()
    for seq in range(2):
        broker.submit("run", 0, seq, Forward([datum([1, 2], [0, 1])], CausalLM()))
    closing = broker.submit("run", 0, 2, Close())
    with pytest.raises(BusyError):
        broker.submit("run", 0, 3, Close())
    backend.open_gate.set()
    await closing.result()
    assert not broker.policies()
    broker.close()
