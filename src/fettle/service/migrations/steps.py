"""What brings a catalogue up to date."""

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from fettle.errors import StorageError

HEAD = "head"
FOLDER = Path(__file__).parent


def migrate(connection: Connection, where: str) -> None:
    """Bring the catalogue to the shape that this code knows, in the connection's transaction: all of it, or nothing.

    Raises:
        StorageError: a newer Fettle has been here.
    """
    steps = ScriptDirectory(FOLDER, version_locations=[str(FOLDER / "versions")])
    context = MigrationContext.configure(connection, opts={"transactional_ddl": True})
    present = context.get_current_revision()
    if present is not None and present not in {step.revision for step in steps.walk_revisions()}:
        raise StorageError(
            f"the catalogue {where} was made by a newer Fettle (its shape is {present!r}): "
            "update this one, or name another with --database-url"
        )
    missing = list(steps.iterate_revisions(HEAD, present or "base"))
    with Operations.context(context):
        for step in reversed(missing):
            step.module.upgrade()
    if missing:
        context.stamp(steps, HEAD)
