"""The first catalogue: tenants and keys, runs and what they leave, usage and money, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Columns = list[sa.Column[object]]


def upgrade() -> None:
    """From nothing."""
    op.create_table("tenants", _id(), _moment("created_at"), _number("balance"), _key("tenants", "id"))
    _owned("keys", _key_columns())
    _owned("runs", _run_columns())
    _owned("samplers", _sampler_columns())
    _owned("checkpoints", _checkpoint_columns())
    op.create_index("ix_checkpoints_run", "checkpoints", ["run"])
    _owned("sessions", _session_columns())
    _usage()
    _ledger()
    _audit()


def _key_columns() -> Columns:
    return [
        _id(),
        *_texts("tenant", "name", "digest"),
        _switch("admin"),
        _moment("created_at"),
        _moment("expires_at", nullable=True),
        _moment("revoked_at", nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        _moment("last_used_at", nullable=True),
    ]


def _run_columns() -> Columns:
    return [
        _id(),
        *_texts("tenant", "name", "model"),
        _document("spec"),
        *_texts("state"),
        _moment("created_at"),
        _moment("changed_at"),
        *_texts("reason"),
        _document("metadata"),
        *_texts("session", "checkpoint"),
    ]


def _sampler_columns() -> Columns:
    texts = _texts("tenant", "model", "checkpoint", "weights")
    return [_id(), *texts, _moment("created_at"), *_texts("session")]


def _checkpoint_columns() -> Columns:
    return [
        _id(),
        *_texts("tenant", "run", "kind", "name", "model"),
        _document("spec"),
        *_texts("path"),
        _moment("created_at"),
        _switch("optimizer"),
        _number("policy_version"),
        *_texts("digest"),
        _number("nbytes"),
        _switch("public"),
        _moment("expires_at", nullable=True),
        _moment("stored_at", nullable=True),
        _document("metadata"),
    ]


def _session_columns() -> Columns:
    return [
        _id(),
        *_texts("tenant"),
        _moment("created_at"),
        *_texts("key"),
        _document("metadata"),
        _document("tags"),
        _moment("finished_at", nullable=True),
    ]


def _usage() -> None:
    counted = [_number(name) for name in ("operations", "microseconds", "tokens")]
    named = ("tenant", "run", "kind", "day")
    op.create_table("usage", *_texts(*named), *counted, _key("usage", *named))
    op.create_table("marks", *_texts("policy"), _number("incarnation"), _number("seq"), _key("marks", "policy"))
    op.create_table("writers", _id(), _number("batch"), _key("writers", "id"))


def _ledger() -> None:
    columns = [*_texts("key", "tenant", "kind"), _number("amount"), _moment("at"), *_texts("note")]
    op.create_table("ledger", *columns, _owner("ledger"), _key("ledger", "key"))
    op.create_index("ix_ledger_tenant", "ledger", ["tenant"])


def _audit() -> None:
    texts = _texts("event", "tenant", "key", "subject", "address")
    times = sa.Column("times", sa.Integer(), nullable=False)
    op.create_table("audit", _counter(), _moment("at"), *texts, times, _key("audit", "number"))
    op.create_index("ix_audit_tenant_number", "audit", ["tenant", "number"])


def _owned(table: str, columns: Columns) -> None:
    """A table of things that have an id and an owner."""
    op.create_table(table, *columns, _owner(table), _key(table, "id"))
    op.create_index(f"ix_{table}_tenant", table, ["tenant"])


def _id() -> sa.Column[object]:
    return sa.Column("id", sa.String(), nullable=False)


def _counter() -> sa.Column[object]:
    # SQLite counts up only where the type is spelt INTEGER.
    return sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False)


def _texts(*names: str) -> Columns:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _number(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _switch(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _document(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=False)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _owner(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name=f"fk_{table}_tenant")
