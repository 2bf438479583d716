"""What an operator may have to account for: who was let in, who was not, and what was made and given away.

Every row goes into a file in the state folder and into the catalogue, within a second. Rows hold ids and addresses,
and never anything that a caller said: a refused key is not told apart from a secret meant for somebody else.
"""

import asyncio
import dataclasses
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fettle.errors import StorageError
from fettle.service.callers import Caller
from fettle.service.entries import AuditEvent, AuditRow
from fettle.service.store import Store
from fettle.tracking.atomic import unwritable

FILE = "audit.jsonl"
MOST_WAITING = 10_000
"""Rows that wait for a catalogue that is away; of what is in the file, nothing is lost."""


class Audit:
    """The audit log. What happens again before it is written is one row that says how often.

    Without a state folder it is in the catalogue alone.
    """

    def __init__(self, store: Store, state: Path | None) -> None:
        self._store = store
        self._path = None if state is None else state / FILE
        self._fresh: dict[tuple[str, ...], AuditRow] = {}
        self._waiting: list[AuditRow] = []
        self._turn = asyncio.Lock()

    def note(self, event: AuditEvent, caller: Caller | None = None, *, subject: str = "", address: str = "") -> None:
        """Something happened."""
        tenant, key = (caller.tenant, caller.key) if caller is not None else ("", "")
        row = AuditRow(datetime.now(UTC), event, tenant, key, subject, address or (caller.address if caller else ""))
        same = (event, tenant, key, subject, row.address)
        earlier = self._fresh.get(same)
        self._fresh[same] = row if earlier is None else dataclasses.replace(earlier, times=earlier.times + 1)

    async def flush(self) -> None:
        """Write what happened since the last time.

        Raises:
            StorageError: the file or the catalogue could not be written; what the catalogue lacks waits.
        """
        async with self._turn:
            fresh, self._fresh = list(self._fresh.values()), {}
            self._waiting = [*self._waiting, *fresh][-MOST_WAITING:]
            if fresh and self._path is not None:
                await asyncio.to_thread(_append, self._path, fresh)
            if self._waiting:
                await self._store.add_audit(self._waiting)
                self._waiting = []


def _append(path: Path, rows: Sequence[AuditRow]) -> None:
    lines = [json.dumps({**dataclasses.asdict(row), "at": row.at.isoformat()}) + "\n" for row in rows]
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.writelines(lines)
    except OSError as error:
        raise StorageError(unwritable(path, error)) from error
