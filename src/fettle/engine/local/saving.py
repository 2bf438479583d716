"""Checkpoints on their way to the disk: a save copies, and what comes after it waits for no more than that."""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from fettle.engine.local.checkpoint import Draft
from fettle.engine.local.copied import Copied, saved_at
from fettle.engine.local.group import Group, agreed, writers
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import EngineError, FettleError
from fettle.types import Checkpoint


class Saves:
    """Into one folder of checkpoints, one after the other, in the order in which they were asked for."""

    def __init__(self, checkpoints: Path) -> None:
        self._checkpoints = checkpoints
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="fettle-saves")
        self._under_way: dict[str, tuple[Path, Future[Checkpoint]]] = {}

    def begin(
        self, policy: str, held: LocalPolicy, name: str, group: Group, *, optimizer: bool
    ) -> "Future[Checkpoint]":
        """Copy a policy as it is now, and have the copy written. Where there is no memory for one, it is written first.

        Where layers are parted every rank has what it holds written, and ``seal`` makes it one.

        Raises:
            CheckpointError: the name was used before.
            StateError: gradients wait for a step, and the optimizer is to be saved.
        """
        draft, among = Draft(self._checkpoints / name), writers(group)
        agreed(among, lambda: self.wait_for(policy, draft.folder))
        agreed(among, draft.begin if group.rank == 0 else lambda: None)
        try:
            with draft.or_nothing():
                copied = held.copied(optimizer=optimizer)
        except EngineError:
            if group.parts:
                raise
            written: Future[Checkpoint] = Future()
            written.set_result(held.save(draft.folder, optimizer=optimizer))
            return written
        written = self._writer.submit(_written, copied, draft, sealed=not group.parts)
        self._under_way[policy] = draft.folder, written
        return written

    def seal(self, name: str) -> Checkpoint:
        """Make one checkpoint of what all ranks have written."""
        draft = Draft(self._checkpoints / name)
        sealed = self._writer.submit(_sealed, draft)
        self._under_way[f"{name}, sealed"] = draft.folder, sealed
        return sealed.result()

    def wait_for(self, policy: str, folder: Path | None = None) -> None:
        """One copy of a policy is in memory at a time, and one checkpoint is written under a name."""
        wait([written for of, (into, written) in self._under_way.items() if of == policy or into == folder])


def _written(copied: Copied, draft: Draft, *, sealed: bool) -> Checkpoint:
    version, fault = copied.version, None
    try:
        with draft.or_nothing():
            copied.write(draft.scratch)
    except FettleError as error:
        fault = type(error)(error.message)  # alone: its traceback would hold on to the copy
    del copied
    if fault is not None:
        raise fault
    return _sealed(draft) if sealed else Checkpoint(draft.folder.name, str(draft.folder), version, "")


def _sealed(draft: Draft) -> Checkpoint:
    draft.seal()
    return saved_at(draft.folder)
