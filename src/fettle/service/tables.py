"""The catalogue's tables; a change here goes with a step in ``migrations``."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy.types import TypeDecorator

from fettle.config import PolicySpec

NANO = Decimal("0.000000001")
"""The smallest amount of money."""


class Moment(TypeDecorator[datetime]):
    """A time in UTC, also where a database knows no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """What is written."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """What was written."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Money(TypeDecorator[Decimal]):
    """An exact amount, as a whole number of its smallest part: SQLite has no decimals."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """What is written."""
        return None if value is None else int(value / NANO)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """What was written. PostgreSQL's sums of whole numbers are decimals."""
        return None if value is None else Decimal(int(value)) * NANO


class Spec(TypeDecorator[PolicySpec]):
    """What a policy is made of."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: PolicySpec | None, dialect: Dialect) -> Any:
        """What is written."""
        return None if value is None else value.model_dump(mode="json")

    def process_result_value(self, value: Any, dialect: Dialect) -> PolicySpec | None:
        """What was written."""
        return None if value is None else PolicySpec.model_validate(value)


class Words(TypeDecorator[tuple[str, ...]]):
    """Several words."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> Any:
        """What is written."""
        return None if value is None else list(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[str, ...] | None:
        """What was written."""
        return None if value is None else tuple(value)


catalogue = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", String, primary_key=True)


def _owner() -> Column[str]:
    return Column("tenant", String, ForeignKey("tenants.id"), nullable=False, index=True)


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, String, primary_key=key, nullable=False)


def _moment(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, Moment, nullable=nullable)


def _switch(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


tenants = Table("tenants", catalogue, _id(), _moment("created_at"), Column("balance", Money, nullable=False))

keys = Table(
    "keys",
    catalogue,
    _id(),
    _owner(),
    _text("name"),
    _text("digest"),
    _switch("admin"),
    _moment("created_at"),
    _moment("expires_at", nullable=True),
    _moment("revoked_at", nullable=True),
    Column("requests_per_minute", Integer, nullable=True),
    _moment("last_used_at", nullable=True),
)

runs = Table(
    "runs",
    catalogue,
    _id(),
    _owner(),
    _text("name"),
    _text("model"),
    Column("spec", Spec, nullable=False),
    _text("state"),
    _moment("created_at"),
    _moment("changed_at"),
    _text("reason"),
    Column("metadata", JSON, nullable=False),
    _text("session"),
    _text("checkpoint"),
)

samplers = Table(
    "samplers",
    catalogue,
    Column("tenant", String, ForeignKey("tenants.id"), primary_key=True),
    _id(),
    _text("model"),
    _text("checkpoint"),
    _text("weights"),
    _moment("created_at"),
    _text("session"),
)

checkpoints = Table(
    "checkpoints",
    catalogue,
    _id(),
    _owner(),
    _text("run"),
    _text("kind"),
    _text("name"),
    _text("model"),
    Column("spec", Spec, nullable=False),
    _text("path"),
    _moment("created_at"),
    _switch("optimizer"),
    _number("policy_version"),
    _text("digest"),
    _number("nbytes"),
    _switch("public"),
    _moment("expires_at", nullable=True),
    _moment("stored_at", nullable=True),
    Column("metadata", JSON, nullable=False),
)

sessions = Table(
    "sessions",
    catalogue,
    _id(),
    _owner(),
    _moment("created_at"),
    _text("key"),
    Column("metadata", JSON, nullable=False),
    Column("tags", Words, nullable=False),
    _moment("finished_at", nullable=True),
)

usage = Table(
    "usage",
    catalogue,
    _text("tenant", key=True),
    _text("run", key=True),
    _text("kind", key=True),
    _text("day", key=True),
    _number("operations"),
    _number("microseconds"),
    _number("tokens"),
)

marks = Table("marks", catalogue, _text("policy", key=True), _number("incarnation"), _number("seq"))
"""The last operation of each policy that is counted in ``usage``."""

writers = Table("writers", catalogue, _id(), _number("batch"))
"""The last batch of each service in ``usage``, ``marks`` and ``ledger``, so that trying again writes it once."""

ledger = Table(
    "ledger",
    catalogue,
    _text("key", key=True),
    _owner(),
    _text("kind"),
    Column("amount", Money, nullable=False),
    _moment("at"),
    _text("note"),
)

audit = Table(
    "audit",
    catalogue,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _moment("at"),
    _text("event"),
    _text("tenant"),
    _text("key"),
    _text("subject"),
    _text("address"),
    Column("times", Integer, nullable=False),
)

Index(None, audit.c.tenant, audit.c.number)
Index(None, checkpoints.c.run)
