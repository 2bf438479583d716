"""Usage and money in the catalogue: what was computed for whom, what it cost, and what is left."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fettle.service import tables
from fettle.service.entries import LedgerRow, UsageRow
from fettle.service.store import Store

SUMS = ("operations", "microseconds", "tokens")


class Mark(NamedTuple):
    """The last operation of a policy that is counted."""

    incarnation: int
    seq: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What was counted since the batch before, and what it costs."""

    writer: str
    number: int
    """Of this writer's batches; they are written in order, and each once."""
    at: datetime
    rows: Sequence[UsageRow]
    marks: Mapping[str, Mark]
    """By policy."""
    charges: Mapping[str, Decimal]
    """By tenant, above 0."""


class Accounts:
    """What a store knows of usage and money. All methods raise ``StorageError`` while it is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, batch: Batch) -> dict[str, Decimal]:
        """Write a batch whole; one that is there already changes nothing. The balances of those it charges."""
        async with self._store.writing() as connection:
            last = select(tables.writers.c.batch).where(tables.writers.c.id == batch.writer)
            if (await connection.scalar(last) or 0) < batch.number:
                await self._write(connection, batch)
            return await _balances(connection, list(batch.charges))

    async def _write(self, connection: AsyncConnection, batch: Batch) -> None:
        await self._store.add_to(connection, tables.writers, {"id": batch.writer, "batch": batch.number})
        for row in batch.rows:
            await self._store.add_to(connection, tables.usage, dataclasses.asdict(row), *SUMS)
        for policy, mark in batch.marks.items():
            await self._store.add_to(connection, tables.marks, {"policy": policy, **mark._asdict()})
        hour = batch.at.strftime("%Y-%m-%dT%H")
        for tenant, cost in batch.charges.items():
            charge = LedgerRow(tenant, f"charge/{tenant}/{hour}", "charge", -cost, batch.at, "computing in this hour")
            await self._store.make_tenant(connection, tenant)
            await self._store.add_to(connection, tables.ledger, dataclasses.asdict(charge), "amount")
            await _add_to_balance(connection, tenant, -cost)

    async def pay(self, row: LedgerRow) -> Decimal:
        """Enter a payment or an opening balance; its key never counts twice. The balance after it."""
        async with self._store.writing() as connection:
            await self._store.make_tenant(connection, row.tenant)
            if await connection.scalar(select(tables.ledger.c.key).where(tables.ledger.c.key == row.key)) is None:
                await connection.execute(tables.ledger.insert().values(**dataclasses.asdict(row)))
                await _add_to_balance(connection, row.tenant, row.amount)
            return (await _balances(connection, [row.tenant]))[row.tenant]

    async def balances(self) -> dict[str, Decimal]:
        """What is left to every tenant."""
        return {tenant.id: tenant.balance for tenant in await self._store.tenants()}

    async def opened(self) -> set[str]:
        """The tenants that have had their opening balance."""
        having = select(tables.ledger.c.tenant).where(tables.ledger.c.kind == "opening")
        async with self._store.reading() as connection:
            return set((await connection.scalars(having)).all())

    async def ledger(self, tenant: str, *, limit: int = 100, offset: int = 0) -> tuple[list[LedgerRow], int]:
        """The changes of a tenant's balance, newest first, and how many there are."""
        its = tables.ledger.c.tenant == tenant
        newest = select(tables.ledger).where(its).order_by(tables.ledger.c.at.desc()).limit(limit).offset(offset)
        async with self._store.reading() as connection:
            rows = [LedgerRow(**row) for row in (await connection.execute(newest)).mappings()]
            total = await connection.scalar(select(func.count()).select_from(tables.ledger).where(its))
        return rows, total or 0

    async def marks(self) -> dict[str, Mark]:
        """By policy."""
        async with self._store.reading() as connection:
            rows = await connection.execute(select(tables.marks))
            return {row["policy"]: Mark(row["incarnation"], row["seq"]) for row in rows.mappings()}

    async def usage(
        self, *, tenant: str | None = None, run: str | None = None, since: str = "", until: str = "9"
    ) -> list[UsageRow]:
        """What was computed from day ``since`` to day ``until``, both included, oldest first."""
        table = tables.usage
        said: list[ColumnElement[bool]] = [table.c.day >= since, table.c.day <= until]
        if tenant is not None:
            said.append(table.c.tenant == tenant)
        if run is not None:
            said.append(table.c.run == run)
        ordered = select(table).where(*said).order_by(table.c.day, table.c.tenant, table.c.run, table.c.kind)
        async with self._store.reading() as connection:
            return [UsageRow(**row) for row in (await connection.execute(ordered)).mappings()]


def opening(tenant: str, amount: Decimal) -> LedgerRow:
    """What a new tenant begins with."""
    return LedgerRow(tenant, f"opening/{tenant}", "opening", amount, datetime.now(UTC), "opening balance")


def payment(tenant: str, amount: Decimal, *, key: str, note: str = "") -> LedgerRow:
    """What a tenant has paid in, or was given; ``key`` is the payer's own name for it."""
    return LedgerRow(tenant, f"payment/{tenant}/{key}", "payment", amount, datetime.now(UTC), note)


async def _add_to_balance(connection: AsyncConnection, tenant: str, amount: Decimal) -> None:
    balance = tables.tenants.c.balance
    await connection.execute(
        update(tables.tenants).where(tables.tenants.c.id == tenant).values(balance=balance + amount)
    )


async def _balances(connection: AsyncConnection, tenants: Sequence[str]) -> dict[str, Decimal]:
    its = select(tables.tenants.c.id, tables.tenants.c.balance).where(tables.tenants.c.id.in_(tenants))
    return {row.id: row.balance for row in await connection.execute(its)}
