import pytest

from fettle.errors import BusyError
from fettle.service.callers import Caller
from fettle.service.rates import CLASSES, MIB, Rates, body_limit, class_of

CALLER = Caller("acme", "key-1", admin=False)


@pytest.fixture
def database_url(tmp_path) -> str:
    """One kind is enough here."""
    return f"sqlite:///{tmp_path / 'catalogue.sqlite3'}"


@pytest.fixture
def rates(audit, clock) -> Rates:
    return Rates(audit, clock=clock)


def taken(rates: Rates, caller: Caller, tries: int, kind: str = "asking", limit: int | None = None) -> int:
    """How many of so many requests are let in."""
    let_in = 0
    for _ in range(tries):
        try:
            rates.take(caller, kind, limit)
            let_in += 1
        except BusyError:
            continue
    return let_in


def test_a_minutes_worth_may_come_at_once_and_no_more(rates):
    assert taken(rates, CALLER, 100, limit=30) == 30


def test_what_may_be_asked_comes_back_with_time(rates, clock):
    taken(rates, CALLER, 100, limit=60)
    clock.now += 10
    assert taken(rates, CALLER, 100, limit=60) == 10


def test_waiting_long_saves_up_a_minutes_worth_at_most(rates, clock):
    taken(rates, CALLER, 1, limit=60)
    clock.now += 3600
    assert taken(rates, CALLER, 1000, limit=60) == 60


def test_who_waits_as_told_is_let_in(rates, clock):
    taken(rates, CALLER, 30, limit=30)
    with pytest.raises(BusyError, match="key-1 may make 30") as refused:
        rates.take(CALLER, "asking", 30)
    clock.now += refused.value.retry_after * 0.9
    with pytest.raises(BusyError):
        rates.take(CALLER, "asking", 30)
    clock.now += refused.value.retry_after
    rates.take(CALLER, "asking", 30)


def test_one_key_never_uses_up_what_is_anothers(rates):
    taken(rates, CALLER, 100, limit=30)
    assert taken(rates, Caller("acme", "key-2", admin=False), 30, limit=30) == 30


def test_every_class_has_a_limit_of_its_own(rates):
    most = CLASSES["saving"].per_minute
    assert taken(rates, CALLER, most + 50, "saving") == most
    assert taken(rates, CALLER, 50, "training") == 50


async def test_whoever_is_refused_is_in_the_audit_log_once_with_a_count(rates, audit, store):
    taken(rates, CALLER, 40, limit=30)
    await audit.flush()
    rows, total = await store.audit(event="rate_limited")
    assert [(row.tenant, row.key, row.times) for row in rows] == [("acme", "key-1", 10)]
    assert total == 1


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v1/runs", "making"),
        ("POST", "/v1/runs/run-1/operations", "training"),
        ("POST", "/v1/runs/run-1/forward_backward", "training"),
        ("POST", "/api/v1/forward_backward", "training"),
        ("POST", "/v1/samplers/s/sample", "drawing"),
        ("POST", "/api/v1/asample", "drawing"),
        ("POST", "/v1/chat/completions", "drawing"),
        ("POST", "/v1/runs/run-1/save_state", "saving"),
        ("POST", "/api/v1/retrieve_future", "asking"),
        ("GET", "/v1/runs", "asking"),
        ("DELETE", "/v1/checkpoints/a/weights/sample", "asking"),
    ],
)
def test_requests_are_of_the_class_that_their_work_is(method, path, kind):
    assert class_of(method, path) == kind


def test_only_requests_that_carry_batches_may_be_large():
    assert body_limit("POST", "/v1/runs/run-1/operations", 64 * MIB) == 64 * MIB
    assert body_limit("POST", "/v1/keys", 64 * MIB) == MIB
    assert body_limit("POST", "/v1/keys", 1000) == 1000
