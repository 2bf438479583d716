"""Checkpoints: whose they are, where they lie, how long they are kept, and who may read them."""

import asyncio
import logging
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fettle.broker import Broker, Promise
from fettle.errors import BusyError, CheckpointError, DataError, StateError, StorageError
from fettle.service import ondisk
from fettle.service.artifacts import Artifacts
from fettle.service.callers import Caller
from fettle.service.clock import Clock
from fettle.service.entries import CheckpointEntry, CheckpointKind, Run
from fettle.service.ids import checked
from fettle.service.later import PAUSE_S, Later
from fettle.service.owned import Owners, unknown
from fettle.service.store import Store
from fettle.types import Checkpoint

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
"""In the state folder."""
SCHEME = "fettle://"
LONGEST_TTL_S = 100 * 365 * 86400
SAVE = "save"
"""The kind of operations that make them."""
BEGUN_S = 1.0
"""After which a run that was beginning may have begun."""


class Checkpoints:
    """Every checkpoint of every tenant, in memory."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        artifacts: Artifacts,
        owners: Owners,
        later: Later,
        clock: Clock,
        *,
        state: Path,
        standing_on: Callable[[str], Run | None],
    ) -> None:
        self._broker = broker
        self._store = store
        self._artifacts = artifacts
        self._owners = owners
        self._later = later
        self._standing_on = standing_on
        self._copying = Later()
        self._turn = asyncio.Lock()
        self._clock = clock
        self._root = (state / FOLDER).resolve()
        self._checkpoints: dict[str, CheckpointEntry] = {}
        self._beginning: Counter[str] = Counter()
        """Folders that runs are about to begin from."""
        self._going: Counter[str] = Counter()
        """Folders that are about to be deleted."""
        self._planned: dict[str, CheckpointEntry] = {}
        """Saves that were announced and are not answered yet, by their folders."""
        self._inherited: dict[str, CheckpointEntry] = {}
        """Of these, those that an earlier process announced."""
        self._left: dict[str, str] = {}
        """Folders that were overwritten and are still there, each with the id of its checkpoint."""

    async def load(self) -> None:
        """Read them from the catalogue; of saves that were announced, those that were written are there.

        Those that were not, and that may still be, are waited for: see :meth:`answered`.
        """
        entries = await self._store.checkpoints()  # oldest first
        self._planned = {entry.path: replace(entry, id=_id_of(entry)) for entry in entries if not entry.digest}
        for entry in entries:
            if entry.digest:
                self._checkpoints[entry.id] = entry
                self._copying.post(partial(self._kept, entry.id))
        for entry in list(self._planned.values()):
            under_way = self._broker.under_way(entry.run, SAVE)
            written = await asyncio.to_thread(ondisk.written, entry)
            before = self._checkpoints.get(entry.id)
            if written.digest and (before is None or before.created_at < entry.created_at):
                self._adopt(written)
            elif written.digest or not under_way:
                self.retract(entry)
        self._inherited = dict(self._planned)
        self._left |= await asyncio.to_thread(ondisk.left, self._root, {**self._checkpoints}, {*self._planned})

    def planned(
        self,
        run: Run,
        *,
        kind: CheckpointKind,
        name: str,
        ttl_seconds: float | None,
        overwrite: bool,
        metadata: Mapping[str, str],
    ) -> CheckpointEntry:
        """What a save will come to. Where one of that name is overwritten, its folder has another name.

        Raises:
            CheckpointError: there is one of that name, or will be, and it is not to be overwritten.
        """
        id = f"{run.id}/{kind}/{checked('the name', name)}"
        path = self._root / run.id / kind / name
        if id in self._checkpoints and not overwrite:
            raise CheckpointError(f"there is a checkpoint {id} already: choose another name, or set overwrite")
        announced = any(entry.id == id for entry in self._planned.values())
        if announced and not overwrite:
            raise CheckpointError(f"a checkpoint {id} is being saved already: choose another name, or set overwrite")
        if announced or id in self._checkpoints or str(path) in self._left:
            path = path.with_name(f"{name}@{secrets.token_hex(4)}")
        now = self._clock()
        return CheckpointEntry(
            id=id,
            tenant=run.tenant,
            run=run.id,
            kind=kind,
            name=name,
            model=run.model,
            spec=run.spec,
            path=str(path),
            created_at=now,
            optimizer=kind == "weights",
            expires_at=_expiry(now, ttl_seconds),
            metadata=dict(metadata),
        )

    def save_name(self, entry: CheckpointEntry) -> str:
        """The name that the engine writes it under."""
        return Path(entry.path).relative_to(self._root).as_posix()

    def uri_of(self, path: str) -> str:
        """How clients name the checkpoint in a folder."""
        return SCHEME + Path(path).relative_to(self._root).as_posix().partition("@")[0]

    async def announce(self, entry: CheckpointEntry) -> None:
        """Put it into the catalogue before it is written, so that it is known if the process ends in between."""
        self._planned[entry.path] = entry
        try:
            await self._store.put_checkpoint(replace(entry, id=_row_of(entry)))
        except BaseException:
            del self._planned[entry.path]
            raise

    def retract(self, entry: CheckpointEntry) -> None:
        """Forget a save that was announced and came to nothing."""
        self._planned.pop(entry.path, None)
        if entry.id not in self._checkpoints or _row_of(entry) != entry.id:
            self._later.post(partial(self._store.remove_checkpoint, _row_of(entry)))

    def saved(self, entry: CheckpointEntry, promise: Promise) -> None:
        """Take note of what a save came to."""
        written = promise.answer
        if not isinstance(written, Checkpoint):
            self.retract(entry)
        else:
            self._adopt(replace(entry, digest=written.digest, policy_version=written.policy_version))

    def answered(self, promise: Promise) -> None:
        """Take note of what a save came to that an earlier process had announced."""
        written = promise.answer
        if isinstance(written, Checkpoint) and written.path in self._inherited:
            self.saved(self._inherited.pop(written.path), promise)
        if promise.kind == SAVE and self._inherited:  # once the others are told of that are answered already
            asyncio.get_running_loop().call_soon(self._retract_unwritten, promise.policy)

    def checkpoint(self, caller: Caller, id: str) -> CheckpointEntry:
        """The caller's checkpoint of that id or address, or one that is public.

        Raises:
            NotFoundError: there is none that the caller may read.
        """
        id = id.removeprefix(SCHEME)
        entry = self._checkpoints.get(id)
        if entry is not None and self._expired(entry):
            raise unknown("checkpoint", id)
        if entry is not None and entry.public:
            return entry
        return self._owners.find("checkpoint", self._checkpoints, id, caller)

    def owned(self, caller: Caller, id: str) -> CheckpointEntry:
        """The caller's own checkpoint of that id or address.

        Raises:
            NotFoundError: the caller has none.
        """
        entry = self.checkpoint(caller, id)
        return self._owners.find("checkpoint", self._checkpoints, entry.id, caller)

    def find(self, id: str) -> CheckpointEntry | None:
        """The checkpoint of that id, whoever's it is."""
        return self._checkpoints.get(id)

    def of(self, tenant: str) -> list[CheckpointEntry]:
        """A tenant's checkpoints, newest first."""
        mine = [entry for entry in self._checkpoints.values() if entry.tenant == tenant and not self._expired(entry)]
        return sorted(mine, key=lambda entry: (entry.created_at, entry.id), reverse=True)

    def check_there(self, path: str) -> None:
        """Refuse to go on from a folder that is about to be deleted.

        Raises:
            StateError: it is.
        """
        if self._going[path]:
            raise StateError(f"the checkpoint {self.uri_of(path)} is being deleted: go on from another")

    @contextmanager
    def beginning(self, path: str) -> Iterator[None]:
        """Within it a run is made that begins from what lies in a folder, which stays as long.

        Raises:
            StateError: it is about to be deleted.
        """
        self.check_there(path)
        with _counted(self._beginning, path):
            yield

    async def publish(self, entry: CheckpointEntry, *, public: bool) -> CheckpointEntry:
        """Let every tenant read it, or only its owner."""
        return await self._changed(entry.id, public=public)

    async def expire(self, entry: CheckpointEntry, ttl_seconds: float | None) -> CheckpointEntry:
        """Say from now on how long it is kept; None keeps it for good."""
        return await self._changed(entry.id, expires_at=_expiry(self._clock(), ttl_seconds))

    async def delete(self, entry: CheckpointEntry) -> None:
        """Delete it.

        A policy that went on from it may have to be made again from the journal until it is next written down whole,
        which is therefore done before; from here on no other can.

        Raises:
            BusyError: a run is beginning from it.
            StateError: a run goes on with it as its base model.
            StorageError: a policy that went on from it cannot be written down.
        """
        with _counted(self._going, entry.path):
            self._check_free(entry)
            await self._broker.written_down_without(entry.path)
            async with self._turn:
                await self._store.remove_checkpoint(_row_of(entry))  # if it was never made whole
                await self._store.remove_checkpoint(entry.id)
                self._checkpoints.pop(entry.id, None)
            await self._artifacts.delete(entry)

    async def tidy(self) -> None:
        """Delete what was overwritten, once no run goes on with it, and none would be made again from it."""
        free = (path for path, id in self._left.items() if self._standing_on(SCHEME + id) is None)
        for path in [path for path in free if not self._beginning[path]]:
            with _counted(self._going, path):
                await self._broker.written_down_without(path)
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
                self._left.pop(path, None)

    def expired(self) -> list[CheckpointEntry]:
        """Those whose time is up, and on which nothing stands."""
        over = [entry for entry in self._checkpoints.values() if self._expired(entry)]
        return [entry for entry in over if self._standing_on(SCHEME + entry.id) is None]

    async def fetched(self, entry: CheckpointEntry) -> CheckpointEntry:
        """The same, once its folder is here."""
        await self._artifacts.fetched(entry)
        return entry

    async def close(self, *, patience_s: float) -> None:
        """End the copying; what is not in the store yet is copied after the next start."""
        await self._copying.close(patience_s=patience_s)

    def _retract_unwritten(self, run_id: str) -> None:
        """Forget what an earlier process announced of a run, once none of its saves is to come."""
        if not self._broker.under_way(run_id, SAVE):
            for entry in [entry for entry in self._inherited.values() if entry.run == run_id]:
                self.retract(self._inherited.pop(entry.path))

    def _check_free(self, entry: CheckpointEntry) -> None:
        run = self._standing_on(SCHEME + entry.id)
        if run is not None:
            raise StateError(f"the run {run.id} goes on with the checkpoint {entry.id} as its model: complete it first")
        if self._beginning[entry.path]:
            raise BusyError(f"a run is beginning from the checkpoint {entry.id}: delete it in a moment", BEGUN_S)

    def _adopt(self, written: CheckpointEntry) -> None:
        """From here on it is the checkpoint of its name; what it took the place of can go."""
        self._planned.pop(written.path, None)
        before = self._checkpoints.get(written.id)
        if before is not None and before.path == written.path:
            return
        self._checkpoints[written.id] = written
        if before is not None:
            self._left[before.path] = before.id  # only the folder: in the artifact store the new one takes its place
        self._later.post(partial(self._measured, written))
        self._copying.post(partial(self._kept, written.id))

    async def _measured(self, entry: CheckpointEntry) -> None:
        """Put it into the catalogue, with its size."""
        files = await asyncio.to_thread(ondisk.files_of, Path(entry.path))
        if entry.id in self._checkpoints:
            await self._changed(entry.id, nbytes=sum(size for _, size in files))
        if _row_of(entry) != entry.id:
            await self._store.remove_checkpoint(_row_of(entry))

    async def _kept(self, id: str) -> None:
        """Copy it into the artifact store."""
        entry = self._checkpoints.get(id)
        if entry is None or entry.stored_at is not None:
            return
        try:
            stored_at = (await self._artifacts.keep(entry)).stored_at
        except StorageError as error:  # the others are not to wait until this one can be copied
            logger.warning("%s will be copied later: %s", id, error.message)
            await asyncio.sleep(PAUSE_S)
            self._copying.post(partial(self._kept, id))
            return
        now = self._checkpoints.get(id)
        if stored_at is not None and now is not None and now.path == entry.path:  # the newer one is copied next
            await self._changed(id, stored_at=stored_at)

    async def _changed(self, id: str, **fields: Any) -> CheckpointEntry:
        """A checkpoint with other fields, in the catalogue and then here."""
        async with self._turn:  # whoever changes it next begins from what this one made of it
            before = self._checkpoints.get(id)
            if before is None:
                raise unknown("checkpoint", id)
            changed = replace(before, **fields)
            await self._store.put_checkpoint(changed)
            if self._checkpoints.get(id) is before:  # and was not overwritten meanwhile, which is written next
                self._checkpoints[id] = changed
            return changed

    def _expired(self, entry: CheckpointEntry) -> bool:
        return entry.expires_at is not None and entry.expires_at <= self._clock()


@contextmanager
def _counted(folders: Counter[str], path: str) -> Iterator[None]:
    """Within it a folder is among the others."""
    folders[path] += 1
    try:
        yield
    finally:
        folders[path] -= 1
        if not folders[path]:
            del folders[path]


def _id_of(entry: CheckpointEntry) -> str:
    return f"{entry.run}/{entry.kind}/{entry.name}"


def _row_of(entry: CheckpointEntry) -> str:
    """The id under which the catalogue has a save that was announced: what it may take the place of has the other."""
    return f"{entry.run}/{entry.kind}/{Path(entry.path).name}"


def _expiry(now: datetime, ttl_seconds: float | None) -> datetime | None:
    if ttl_seconds is None:
        return None
    if not 0 < ttl_seconds <= LONGEST_TTL_S:
        raise DataError(f"ttl_seconds is {ttl_seconds}: a checkpoint is kept for more than 0 and up to 100 years")
    return now + timedelta(seconds=ttl_seconds)
