"""The catalogue: a database of who owns what. Nothing that computes ever waits for it."""

import asyncio
import dataclasses
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import URL, ColumnElement, Table, delete, event, func, make_url, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import DataError as ValueRefused
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fettle.errors import ConfigError, DataError, NotFoundError, StorageError
from fettle.service import tables
from fettle.service.entries import AuditRow, CheckpointEntry, Key, Run, SamplerRow, Session, Tenant
from fettle.service.migrations.steps import migrate

CATALOGUE = "catalogue.sqlite3"
"""The file in the state folder."""

DRIVERS = MappingProxyType(
    {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
)
INSERTS: Mapping[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = MappingProxyType(
    {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
)
BUSY_MS = 30_000
RETRY_S = 0.01
CONNECT_S = 5
POOL_S = 10
MIGRATING = 0x66657474
"""The number under which PostgreSQL lets one service at a time migrate."""

Entry = TypeVar("Entry", Run, SamplerRow, CheckpointEntry, Session)


def database_url(url: str | None, state: Path) -> URL:
    """The catalogue's address with its driver: SQLite in the state folder unless another is given.

    Raises:
        ConfigError: it is no address, or of a database that is not known here.
    """
    if url is None:
        return URL.create(DRIVERS["sqlite"], database=str(state / CATALOGUE))
    try:
        given = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            "database_url is no address of a database: write it like postgresql://user@host/name"
        ) from error
    driver = DRIVERS.get(given.drivername.partition("+")[0])
    if driver is None:
        raise ConfigError(
            f"database_url begins with {given.drivername}: SQLite (sqlite:///file) and PostgreSQL "
            "(postgresql://user@host/name) are known here"
        )
    return given.set(drivername=driver)


class Store:
    """What is kept across restarts, behind plain methods. Each is one transaction.

    Every method raises ``StorageError`` while the database is away, and works again once it is back.
    """

    def __init__(self, engine: AsyncEngine, where: str) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reading=True)
        self._insert = INSERTS[engine.dialect.name]
        self._where = where

    @classmethod
    async def opened(cls, url: str | None, state: Path) -> "Store":
        """The catalogue at an address, or in the state folder, made or brought up to date first.

        Raises:
            ConfigError: the address is none.
            StorageError: the database cannot be reached, or a newer Fettle has been here.
        """
        address = database_url(url, state)
        where = address.render_as_string(hide_password=True)
        if address.get_backend_name() == "sqlite":
            where = str(address.database)
            await asyncio.to_thread(_make_folder, Path(where).parent)
        store = cls(_engine(address), where)
        try:
            if address.get_backend_name() == "sqlite":
                async with store._answering():
                    await asyncio.to_thread(_write_ahead, where)
            await store._migrate()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Give the connections back."""
        await self._engine.dispose()

    async def _migrate(self) -> None:
        async with self.writing() as connection:
            # On SQLite, writing has already shut out everybody else.
            if self._engine.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATING})
            await connection.run_sync(lambda sync: migrate(sync, self._where))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing."""
        async with self._answering(), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: all of it, or nothing."""
        async with self._answering(), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeoutError, sqlite3.OperationalError, OSError) as error:
            raise StorageError(self._away(error)) from error
        except (ValueRefused, UnicodeEncodeError) as error:
            raise DataError(
                "a text or a number here is none that a database can keep: leave out NUL characters"
            ) from error

    def _away(self, error: Exception) -> str:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = str(cause).strip().partition("\n")[0] or type(cause).__name__
        return f"the catalogue {self._where} does not answer ({said}): see that the database runs and can be written to"

    # Tenants and keys

    async def tenants(self) -> list[Tenant]:
        """Everybody who owns something."""
        async with self.reading() as connection:
            rows = await connection.execute(select(tables.tenants).order_by(tables.tenants.c.id))
            return [Tenant(**row) for row in rows.mappings()]

    async def add_key(self, key: Key, digest: str) -> None:
        """Keep a new key."""
        async with self.writing() as connection:
            await self.make_tenant(connection, key.tenant)
            await connection.execute(tables.keys.insert().values(**dataclasses.asdict(key), digest=digest))

    async def key(self, id: str) -> tuple[Key, str] | None:
        """A key and the digest of its secret."""
        async with self.reading() as connection:
            row = (await connection.execute(select(tables.keys).where(tables.keys.c.id == id))).mappings().first()
        return None if row is None else (_key_of(row), row["digest"])

    async def keys(self, tenant: str | None = None) -> list[Key]:
        """A tenant's keys, or everybody's, newest first."""
        wanted = select(tables.keys).order_by(tables.keys.c.created_at.desc(), tables.keys.c.id)
        if tenant is not None:
            wanted = wanted.where(tables.keys.c.tenant == tenant)
        async with self.reading() as connection:
            return [_key_of(row) for row in (await connection.execute(wanted)).mappings()]

    async def revoke_key(self, id: str, at: datetime) -> Key:
        """A key that is good no longer; revoking it again changes nothing.

        Raises:
            NotFoundError: there is none of that id.
        """
        of_id = tables.keys.c.id == id
        async with self.writing() as connection:
            unrevoked = update(tables.keys).where(of_id, tables.keys.c.revoked_at.is_(None))
            await connection.execute(unrevoked.values(revoked_at=at))
            row = (await connection.execute(select(tables.keys).where(of_id))).mappings().first()
        if row is None:
            raise NotFoundError(
                f"there is no key of the id {id}: the list of keys shows their ids, the part after tml-"
            )
        return _key_of(row)

    async def key_used(self, id: str, at: datetime) -> bool:
        """Note that a key was used; True for the first time."""
        of_id = tables.keys.c.id == id
        async with self.writing() as connection:
            first = update(tables.keys).where(of_id, tables.keys.c.last_used_at.is_(None)).values(last_used_at=at)
            if (await connection.execute(first)).rowcount:
                return True
            await connection.execute(update(tables.keys).where(of_id).values(last_used_at=at))
            return False

    # Runs and what they leave

    async def runs(self) -> list[Run]:
        """All runs, oldest first."""
        return await self._all(tables.runs, Run)

    async def put_run(self, run: Run) -> None:
        """Keep a run as it is now."""
        await self._put(tables.runs, run)

    async def remove_run(self, id: str) -> None:
        """Forget a run that came to nothing."""
        await self._remove(tables.runs, id)

    async def samplers(self) -> list[SamplerRow]:
        """All samplers, oldest first."""
        return await self._all(tables.samplers, SamplerRow)

    async def put_sampler(self, sampler: SamplerRow) -> None:
        """Keep a sampler."""
        await self._put(tables.samplers, sampler)

    async def remove_sampler(self, tenant: str, id: str) -> None:
        """Forget a tenant's sampler."""
        async with self.writing() as connection:
            own = (tables.samplers.c.tenant == tenant) & (tables.samplers.c.id == id)
            await connection.execute(delete(tables.samplers).where(own))

    async def checkpoints(self) -> list[CheckpointEntry]:
        """All checkpoints, oldest first."""
        return await self._all(tables.checkpoints, CheckpointEntry)

    async def put_checkpoint(self, checkpoint: CheckpointEntry) -> None:
        """Keep what is known of a checkpoint now."""
        await self._put(tables.checkpoints, checkpoint)

    async def remove_checkpoint(self, id: str) -> None:
        """Forget a checkpoint."""
        await self._remove(tables.checkpoints, id)

    async def sessions(self) -> list[Session]:
        """All sessions, oldest first."""
        return await self._all(tables.sessions, Session)

    async def put_session(self, session: Session) -> None:
        """Keep a session as it is now."""
        await self._put(tables.sessions, session)

    # The audit log

    async def add_audit(self, rows: Sequence[AuditRow]) -> None:
        """Add to the audit log."""
        async with self.writing() as connection:
            await connection.execute(tables.audit.insert(), [dataclasses.asdict(row) for row in rows])

    async def audit(
        self, *, tenant: str | None = None, event: str | None = None, limit: int = 100, offset: int = 0
    ) -> tuple[list[AuditRow], int]:
        """The audit log, newest first, and how many rows there are."""
        said: list[ColumnElement[bool]] = []
        if tenant is not None:
            said.append(tables.audit.c.tenant == tenant)
        if event is not None:
            said.append(tables.audit.c.event == event)
        columns = [column for column in tables.audit.c if column.name != "number"]
        newest = select(*columns).where(*said).order_by(tables.audit.c.number.desc()).limit(limit).offset(offset)
        async with self.reading() as connection:
            rows = [AuditRow(**row) for row in (await connection.execute(newest)).mappings()]
            total = await connection.scalar(select(func.count()).select_from(tables.audit).where(*said))
        return rows, total or 0

    # What they are made of

    async def make_tenant(self, connection: AsyncConnection, tenant: str) -> None:
        """See that a tenant exists."""
        values = {"id": tenant, "created_at": datetime.now(UTC), "balance": Decimal(0)}
        await connection.execute(self._insert(tables.tenants).values(values).on_conflict_do_nothing())

    async def add_to(self, connection: AsyncConnection, table: Table, values: dict[str, Any], *sums: str) -> None:
        """A row; where its key is taken, the row there changes: ``sums`` are added to, the rest is replaced."""
        row = self._insert(table).values(values)
        key = [column.name for column in table.primary_key]
        changed = {
            name: table.c[name] + row.excluded[name] if name in sums else row.excluded[name]
            for name in values
            if name not in key
        }
        await connection.execute(row.on_conflict_do_update(index_elements=key, set_=changed))

    async def _all(self, table: Table, kind: type[Entry]) -> list[Entry]:
        async with self.reading() as connection:
            rows = await connection.execute(select(table).order_by(table.c.created_at, table.c.id))
            return [kind(**row) for row in rows.mappings()]

    async def _put(self, table: Table, entry: Run | SamplerRow | CheckpointEntry | Session) -> None:
        async with self.writing() as connection:
            await self.make_tenant(connection, entry.tenant)
            await self.add_to(connection, table, {column.name: getattr(entry, column.name) for column in table.c})

    async def _remove(self, table: Table, id: str) -> None:
        async with self.writing() as connection:
            await connection.execute(delete(table).where(table.c.id == id))


def _key_of(row: Any) -> Key:
    return Key(**{name: value for name, value in row.items() if name != "digest"})


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made ({error.strerror}): name another state folder") from error


def _engine(address: URL) -> AsyncEngine:
    if address.get_backend_name() == "postgresql":
        return create_async_engine(
            address, pool_pre_ping=True, pool_timeout=POOL_S, connect_args={"connect_timeout": CONNECT_S}
        )
    engine = create_async_engine(address, pool_timeout=POOL_S)
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _write_ahead(file: str) -> None:
    # Of two that turn a new file to its write-ahead log at once, SQLite refuses one, however long it would wait.
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, tables made in them included
    cursor = connection.cursor()
    settings = {"busy_timeout": BUSY_MS, "synchronous": "NORMAL", "foreign_keys": "ON"}
    for name, value in settings.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _begin(connection: Any) -> None:
    # A reader that becomes a writer half-way is refused at once where others write, however long it would wait.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
