"""Checkpoints: whose they are, where they lie, how long they are kept, and who may read them."""

import asyncio
import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fettle.broker import Broker, Promise
from fettle.errors import CheckpointError, DataError, StateError, StorageError
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
MANIFEST, STATE = "manifest.json", "policy.json"
"""Files of every checkpoint: the hashes of the others, and what it was made of."""
LONGEST_TTL_S = 100 * 365 * 86400


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
        self._started = clock()
        self._checkpoints: dict[str, CheckpointEntry] = {}
        self._taken_up: set[str] = set()
        """Folders that a policy has begun from or taken up since this process began."""
        self._planned: dict[str, CheckpointEntry] = {}
        """Saves that were announced and are not answered yet, by their folders."""
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
            written = await asyncio.to_thread(_written, entry)
            before = self._checkpoints.get(entry.id)
            if written.digest and (before is None or before.created_at < entry.created_at):
                self._adopt(written)
            elif written.digest or entry.run not in self._broker.policies():
                self.retract(entry)
        self._left |= await asyncio.to_thread(_left, self._root, {**self._checkpoints}, {*self._planned})
        self._taken_up.update(self._left)  # who knows by whom, before this process began

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
            CheckpointError: there is one of that name, and it is not to be overwritten.
        """
        id = f"{run.id}/{kind}/{checked('the name', name)}"
        path = self._root / run.id / kind / name
        if id in self._checkpoints and not overwrite:
            raise CheckpointError(f"there is a checkpoint {id} already: choose another name, or set overwrite")
        announced = str(path) in self._planned and overwrite
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
        if isinstance(written, Checkpoint) and written.path in self._planned:
            self.saved(self._planned[written.path], promise)

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

    def take_up(self, path: str) -> None:
        """Note that a policy goes on from what lies in this folder."""
        self._taken_up.add(path)

    async def publish(self, entry: CheckpointEntry, *, public: bool) -> CheckpointEntry:
        """Let every tenant read it, or only its owner."""
        return await self._changed(entry.id, public=public)

    async def expire(self, entry: CheckpointEntry, ttl_seconds: float | None) -> CheckpointEntry:
        """Say from now on how long it is kept; None keeps it for good."""
        return await self._changed(entry.id, expires_at=_expiry(self._clock(), ttl_seconds))

    async def delete(self, entry: CheckpointEntry) -> None:
        """Delete it.

        A policy that went on from it may have to be made again from the journal until it is next written down whole,
        which is therefore done before.

        Raises:
            StateError: a run goes on with it as its base model.
        """
        run = self._standing_on(SCHEME + entry.id)
        if run is not None:
            raise StateError(f"the run {run.id} goes on with the checkpoint {entry.id} as its model: complete it first")
        if entry.path in self._taken_up or entry.created_at < self._started:
            await self._broker.snapshot_all()
        async with self._turn:
            await self._store.remove_checkpoint(_row_of(entry))  # if it was never made whole
            await self._store.remove_checkpoint(entry.id)
            self._checkpoints.pop(entry.id, None)
        self._taken_up.discard(entry.path)
        await self._artifacts.delete(entry)

    async def tidy(self) -> None:
        """Delete what was overwritten, once no run goes on with it, and none would be made again from it."""
        over = [path for path, id in self._left.items() if self._standing_on(SCHEME + id) is None]
        if not self._taken_up.isdisjoint(over):
            await self._broker.snapshot_all()
        for path in over:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            self._left.pop(path, None)
            self._taken_up.discard(path)

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
        files = await asyncio.to_thread(_files, Path(entry.path))
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


def _written(entry: CheckpointEntry) -> CheckpointEntry:
    """The entry with what is in its folder, if that was written."""
    folder = Path(entry.path)
    try:
        version = int(json.loads((folder / STATE).read_text())["policy_version"])
        with (folder / MANIFEST).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, TypeError, KeyError):
        return entry
    return replace(entry, digest=digest, policy_version=version, nbytes=sum(size for _, size in _files(folder)))


def _id_of(entry: CheckpointEntry) -> str:
    return f"{entry.run}/{entry.kind}/{entry.name}"


def _row_of(entry: CheckpointEntry) -> str:
    """The id under which the catalogue has a save that was announced: what it may take the place of has the other."""
    return f"{entry.run}/{entry.kind}/{Path(entry.path).name}"


def _left(root: Path, kept: Mapping[str, CheckpointEntry], planned: Collection[str]) -> dict[str, str]:
    """Folders of checkpoints that have another one now, each with the checkpoint's id."""
    found: dict[str, str] = {}
    for entry in kept.values():
        folder = root / entry.run / entry.kind
        for path in (folder / entry.name, *folder.glob(f"{entry.name}@*")):
            if str(path) != entry.path and str(path) not in planned and path.is_dir():
                found[str(path)] = entry.id
    return found


def _files(folder: Path) -> list[tuple[str, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)


def _expiry(now: datetime, ttl_seconds: float | None) -> datetime | None:
    if ttl_seconds is None:
        return None
    if not 0 < ttl_seconds <= LONGEST_TTL_S:
        raise DataError(f"ttl_seconds is {ttl_seconds}: a checkpoint is kept for more than 0 and up to 100 years")
    return now + timedelta(seconds=ttl_seconds)
