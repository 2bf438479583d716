"""Samplers by tenant and id: what one tenant calls its own is no concern of another's."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXTS = ("id", "tenant", "model", "checkpoint", "weights", "session")


def upgrade() -> None:
    """From ids that were everybody's."""
    columns: list[sa.Column[Any]] = [sa.Column(name, sa.String()) for name in TEXTS]
    kept = sa.Table("samplers", sa.MetaData(), *columns, sa.Column("created_at", sa.DateTime(timezone=True)))
    before = op.get_bind().execute(sa.select(kept)).mappings().all()
    op.drop_table("samplers")
    made = op.create_table(
        "samplers",
        *(sa.Column(name, sa.String(), nullable=False) for name in TEXTS),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name="fk_samplers_tenant"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_samplers"),
    )
    if before:
        op.bulk_insert(made, [dict(row) for row in before])
