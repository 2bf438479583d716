"""Sessions: what one client does from its start to its end, and how long ago it was heard of."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fettle.service.callers import Caller
from fettle.service.clock import Clock
from fettle.service.entries import Session
from fettle.service.ids import new_id
from fettle.service.owned import Owners, unknown
from fettle.service.store import Store


class Sessions:
    """Every session of every tenant, in memory. After a restart all that go on have just been heard of."""

    def __init__(
        self,
        store: Store,
        owners: Owners,
        clock: Clock,
        *,
        timeout_s: float,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._owners = owners
        self._clock = clock
        self._timeout_s = timeout_s
        self._seconds = seconds
        self._sessions: dict[str, Session] = {}
        self._heard: dict[str, float] = {}
        self._by_key: dict[tuple[str, str], str] = {}

    async def load(self) -> None:
        """Read them all from the catalogue."""
        for session in await self._store.sessions():
            self._take_up(session)

    async def create(self, caller: Caller, metadata: Mapping[str, str], tags: Sequence[str], key: str) -> str:
        """A session; the same key again is the same session."""
        before = self._by_key.get((caller.tenant, key)) if key else None
        if before is not None:
            return before
        session = Session(new_id("session"), caller.tenant, self._clock(), key, dict(metadata), tuple(tags))
        self._take_up(session)
        try:
            await self._store.put_session(session)
        except BaseException:
            self._drop(session)
            raise
        return session.id

    def session(self, caller: Caller, id: str) -> Session:
        """The caller's session of that id.

        Raises:
            NotFoundError: the caller has none.
        """
        return self._owners.find("session", self._sessions, id, caller)

    def of(self, tenant: str) -> list[Session]:
        """A tenant's sessions, newest first."""
        mine = [session for session in self._sessions.values() if session.tenant == tenant]
        return sorted(mine, key=lambda session: session.created_at, reverse=True)

    def heartbeat(self, caller: Caller, id: str) -> None:
        """Note that its client is there.

        Raises:
            NotFoundError: the caller has no such session, or it was finished.
        """
        if self.session(caller, id).finished_at is not None:
            raise unknown("session", id)
        self._heard[id] = self._seconds()

    async def finish(self, session: Session) -> None:
        """End it."""
        if session.finished_at is None:
            ended = replace(session, finished_at=self._clock())
            await self._store.put_session(ended)
            self._sessions[session.id] = ended
            self._heard.pop(session.id, None)

    def silent(self) -> list[Session]:
        """Those that nobody has heard of for too long."""
        since = self._seconds() - self._timeout_s
        return [self._sessions[id] for id, heard in self._heard.items() if heard < since]

    def _take_up(self, session: Session) -> None:
        self._sessions[session.id] = session
        if session.key:
            self._by_key[session.tenant, session.key] = session.id
        if session.finished_at is None:
            self._heard[session.id] = self._seconds()

    def _drop(self, session: Session) -> None:
        del self._sessions[session.id]
        self._by_key.pop((session.tenant, session.key), None)
        self._heard.pop(session.id, None)
