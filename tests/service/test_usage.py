import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import make_url

from fettle.broker.promises import Keeping, Promise
from fettle.config import Prices
from fettle.config.load import dump, load_as
from fettle.config.prices import TokenPrices
from fettle.errors import BalanceError, CancelledError, ConfigError, StorageError
from fettle.service.callers import ANYBODY as ME
from fettle.service.entries import LedgerRow, UsageRow
from fettle.service.prices import cost
from fettle.service.store import Store
from fettle.service.usage import Usage
from tests.service.databases import Locked, Wire
from tests.service.inside import Machine, new_run, trained

PRICES = Prices(
    device_second=Decimal("0.0011"),
    thousand_tokens=TokenPrices(forward_backward=Decimal("0.003"), draw=Decimal("0.0007")),
    opening_balance=Decimal("1000000"),
)
CENT = Decimal("0.01")


async def nothing(_: Promise) -> None:
    """A promise of a broker without a journal."""


KEEPING = Keeping(durable=nothing, cancelled=lambda _: False, acknowledged=lambda _: None)


def promised(id: str, *, kind="forward_backward", tenant="acme", tokens=0) -> Promise:
    policy = "" if kind == "draw" else id.rsplit(".", 2)[0] if not id.endswith(".open") else id.removesuffix(".open")
    return Promise(id, policy=policy, tenant=tenant, kind=kind, tokens=tokens, said="", keeping=KEEPING)


def carry_out(promise: Promise, seconds: float, tokens: int = 0, answer: object = None) -> Promise:
    promise.seconds, promise.tokens = seconds, tokens
    promise.settle(answer)
    return promise


async def told() -> None:
    """What is done is told in the next turn of the event loop."""
    await asyncio.sleep(0)


@pytest.fixture
async def usage(store) -> Usage:
    made = Usage(store, PRICES)
    await made.load()
    return made


async def test_what_is_computed_is_counted_by_tenant_run_and_kind(usage):
    for seq in range(3):
        promise = promised(f"run-1.0.{seq}")
        usage.watch(promise)
        carry_out(promise, 0.25, 100)
    draw = promised("draw-1", kind="draw")
    usage.watch(draw, run="run-1")
    carry_out(draw, 0.5, 7)
    other = promised("run-2.open", kind="create", tenant="other")
    usage.watch(other)
    carry_out(other, 2.0)
    await told()
    await usage.flush()
    rows = await usage.accounts.usage()
    assert {replace(row, day="") for row in rows} == {
        UsageRow("acme", "run-1", "forward_backward", "", 3, 750_000, 300),
        UsageRow("acme", "run-1", "draw", "", 1, 500_000, 7),
        UsageRow("other", "run-2", "create", "", 1, 2_000_000, 0),
    }
    assert [row.run for row in await usage.accounts.usage(tenant="other")] == ["run-2"]
    assert await usage.accounts.usage(until="2000-01-01") == []


async def test_the_same_promise_is_counted_once(usage):
    for id, kind in (("run-1.0.0", "forward_backward"), ("draw-1", "draw")):
        promise = promised(id, kind=kind)
        usage.watch(promise)
        usage.watch(promise)
        carry_out(promise, 1.0)
        await told()
        usage.watch(promise)
        await told()
    await usage.flush()
    assert [row.operations for row in await usage.accounts.usage()] == [1, 1]


async def test_an_operation_that_failed_has_cost_its_time_and_one_that_was_cancelled_nothing(usage):
    failed, cancelled = promised("run-1.0.0"), promised("run-1.0.1")
    for promise in (failed, cancelled):
        usage.watch(promise)
    carry_out(cancelled, 0.0, answer=CancelledError("not carried out"))
    carry_out(failed, 0.5, answer=ConfigError("no such thing"))
    await told()
    await usage.flush()
    (row,) = await usage.accounts.usage()
    assert (row.operations, row.microseconds) == (1, 500_000)


async def test_what_was_written_before_a_restart_is_not_counted_again(usage, store):
    done = [carry_out(promised(f"run-1.0.{seq}"), 1.0) for seq in range(3)]
    for promise in done[:2]:
        usage.watch(promise)
    await told()
    await usage.flush()
    after = Usage(store, PRICES)
    await after.load()
    for promise in done:
        after.watch(promise)
    await told()
    await after.flush()
    (row,) = await after.accounts.usage()
    assert row.operations == 3


async def test_without_prices_nothing_is_charged_and_nobody_refused(store):
    usage = Usage(store)
    await usage.load()
    usage.watch(carry_out(promised("run-1.0.0"), 1e6))
    await told()
    await usage.flush()
    usage.check("acme")
    assert await usage.accounts.ledger("acme") == ([], 0)


async def test_a_cost_is_that_of_the_seconds_and_of_the_tokens():
    row = UsageRow("acme", "run-1", "forward_backward", "2026-01-31", 1, 2_500_000, 1500)
    assert cost(row, PRICES) == Decimal("0.00275") + Decimal("0.0045")
    assert cost(replace(row, kind="optim_step"), PRICES) == Decimal("0.00275")


@dataclass(frozen=True)
class Unreliable:
    """A store, and what may become of its database: each lasts while it is entered."""

    store: Store
    faults: list[Callable[[], AbstractContextManager[None]]]


@pytest.fixture
async def unreliable(database_url, tmp_path, monkeypatch) -> AsyncIterator[Unreliable]:
    """SQLite is locked by another program; of PostgreSQL's answers one is lost, before or after it has committed."""
    monkeypatch.setattr("fettle.service.store.BUSY_MS", 1)
    address = make_url(database_url)
    if address.get_backend_name() == "sqlite":
        store = await Store.opened(database_url, tmp_path)
        locked = Locked(Path(str(address.database)))
        yield Unreliable(store, [lambda: locked])
        locked.close()
        await store.close()
        return
    wire = Wire(int(address.port or 0))
    async with wire.open() as port:
        store = await Store.opened(address.set(port=port).render_as_string(hide_password=False), tmp_path)
        yield Unreliable(store, [partial(wire.cut_at, b"BEGIN\0"), partial(wire.cut_at, b"COMMIT\0")])
        await store.close()


@pytest.mark.parametrize("seed", range(2))
async def test_the_ledger_adds_up_to_rate_times_time_whatever_fails(unreliable, seed):
    rng, store, failed = Random(seed), unreliable.store, 0
    usage = Usage(store, PRICES)
    await usage.load()
    done: dict[str, Promise] = {}
    for number in range(150):
        tenant = rng.choice(["acme", "other"])
        promise = promised(f"run-{tenant}.0.{number}", tenant=tenant, kind=rng.choice(["forward_backward", "forward"]))
        usage.watch(promise)
        done[promise.id] = carry_out(promise, rng.uniform(1e-6, 3.0), rng.randrange(5000))
        await told()
        if rng.random() < 0.4:
            fault = rng.choice(unreliable.faults)() if rng.random() < 0.4 else nullcontext()
            failed += not await flushed_or_not(usage, fault)
        if rng.random() < 0.05:  # killed, and started again with the answers that the journal holds
            usage = Usage(store, PRICES)
            await usage.load()
            for promise in done.values():
                usage.watch(promise)
            await told()
    assert failed > 10
    await usage.flush()
    for tenant in ("acme", "other"):
        measured = [promise for promise in done.values() if promise.tenant == tenant]
        seconds = sum(promise.seconds for promise in measured)
        tokens = sum(promise.tokens for promise in measured if promise.kind == "forward_backward")
        expected = PRICES.device_second * Decimal(seconds) + Decimal("0.003") * tokens / 1000
        rows, _ = await usage.accounts.ledger(tenant, limit=1000)
        assert abs(-sum(row.amount for row in rows if row.kind == "charge") - expected) < CENT
        assert sum(row.amount for row in rows) == (await usage.accounts.balances())[tenant]
        counted = await usage.accounts.usage(tenant=tenant)
        assert sum(row.operations for row in counted) == len(measured)


async def flushed_or_not(usage: Usage, fault: AbstractContextManager[None]) -> bool:
    with fault:
        try:
            await usage.flush()
        except StorageError:
            return False
    return True


async def test_a_balance_that_is_used_up_refuses_work_until_somebody_pays(store):
    usage = Usage(store, PRICES.model_copy(update={"opening_balance": Decimal("0.01")}))
    await usage.load()
    heard: list[str] = []

    async def emptied(tenant: str) -> None:
        heard.append(f"{tenant} is out")

    async def refilled(tenant: str) -> None:
        heard.append(f"{tenant} is back")

    usage.when_emptied(emptied)
    usage.when_refilled(refilled)
    usage.check("acme")
    usage.watch(carry_out(promised("run-1.0.0"), 5.0))
    await told()
    await usage.flush()
    usage.check("acme")
    usage.watch(carry_out(promised("run-1.0.1"), 5.0))
    await told()
    await usage.flush()
    with pytest.raises(BalanceError, match="acme is used up"):
        usage.check("acme")
    assert await usage.pay("acme", Decimal(5), key="invoice 1") == Decimal("4.999")
    assert await usage.pay("acme", Decimal(5), key="invoice 1") == Decimal("4.999")
    usage.check("acme")
    assert heard == ["acme is out", "acme is back"]


async def test_a_payment_that_comes_as_runs_are_paused_is_told_after_that(store):
    usage = Usage(store, PRICES.model_copy(update={"opening_balance": Decimal("0.001")}))
    await usage.load()
    heard: list[str] = []
    payments: list[asyncio.Task[Decimal]] = []

    async def emptied(tenant: str) -> None:
        payments.append(asyncio.create_task(usage.pay(tenant, Decimal(5), key="invoice 1")))
        await asyncio.wait(payments, timeout=0.2)
        heard.append(f"{tenant} is out")

    async def refilled(tenant: str) -> None:
        heard.append(f"{tenant} is back")

    usage.when_emptied(emptied)
    usage.when_refilled(refilled)
    usage.check("acme")
    usage.watch(carry_out(promised("run-1.0.0"), 5.0))
    await told()
    await usage.flush()
    await asyncio.gather(*payments)
    assert heard == ["acme is out", "acme is back"]
    usage.watch(carry_out(promised("run-1.0.1"), 5.0))
    await told()
    for left, rows, _ in await asyncio.gather(usage.statement("acme", limit=9), late_statement(usage)):
        assert left == sum(row.amount for row in rows)


async def late_statement(usage: Usage) -> tuple[Decimal, list[LedgerRow], int]:
    await usage.flush()
    return await usage.statement("acme", limit=9)


async def test_a_payment_that_does_not_reach_zero_changes_nothing_for_the_runs(store):
    usage = Usage(store, PRICES.model_copy(update={"opening_balance": Decimal(0)}))
    await usage.load()
    heard: list[str] = []

    async def refilled(tenant: str) -> None:
        heard.append(tenant)

    usage.when_refilled(refilled)
    with pytest.raises(BalanceError):
        usage.check("acme")
    usage.watch(carry_out(promised("run-1.0.0"), 1000.0))
    await told()
    await usage.flush()
    await usage.pay("acme", Decimal("0.5"), key="a little")
    assert heard == []
    with pytest.raises(BalanceError):
        usage.check("acme")


async def test_who_had_nothing_left_before_a_restart_is_told_again(store):
    broke = PRICES.model_copy(update={"opening_balance": Decimal("0.001")})
    usage = Usage(store, broke)
    await usage.load()
    usage.check("acme")
    usage.watch(carry_out(promised("run-1.0.0"), 5.0))
    await told()
    await usage.flush()
    after = Usage(store, broke)
    await after.load()
    heard: list[str] = []

    async def emptied(tenant: str) -> None:
        heard.append(tenant)

    after.when_emptied(emptied)
    await after.flush()
    await after.flush()
    assert heard == ["acme"]


async def test_the_opening_balance_is_given_once_and_survives_restarts(store):
    for _ in range(3):
        usage = Usage(store, PRICES)
        await usage.load()
        usage.check("acme")
        await usage.flush()
        assert (await usage.accounts.balances())["acme"] == PRICES.opening_balance


def test_prices_are_read_as_they_are_written(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("device_second: 0.1\nthousand_tokens:\n  draw: 1e-3\n")
    prices = load_as(Prices, file)
    assert prices.device_second == Decimal("0.1")
    assert prices.thousand_tokens.draw == Decimal("0.001")
    file.write_text(dump(prices))
    assert load_as(Prices, file) == prices


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device_seconds: 1", "device_second"),
        ("thousand_tokens: {drw: 1}", "draw"),
        ("device_second: -1", "equal to 0"),
    ],
)
def test_prices_that_cannot_be_are_refused_with_the_word_that_was_meant(tmp_path, text, said):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_as(Prices, file)


async def test_what_earlier_holders_of_a_run_did_is_counted_after_a_crash(tmp_path, tiny_model):
    machine = Machine(tmp_path, tiny_model)
    async with machine.service() as service:
        await new_run(service, "r")
        await trained(service, "r")
        await service.attach(ME, "r")
        await trained(service, "r")
        await service.attach(ME, "r")
        await service.broker.written_down("r")
        machine.lose_power()
    machine.come_back()
    async with machine.service() as service:
        await service.usage.flush()
        rows = await service.usage.accounts.usage()
        assert {row.kind: row.operations for row in rows}.items() >= {"forward_backward": 2, "optim_step": 2}.items()
