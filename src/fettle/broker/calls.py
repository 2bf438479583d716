"""The calls of a policy, carried out."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from fettle.calls import (
    Call,
    Close,
    Create,
    Forward,
    ForwardBackward,
    Load,
    OptimStep,
    Pin,
    Restore,
    Save,
    Undo,
)
from fettle.engine.base import Backend
from fettle.errors import CheckpointError
from fettle.types import Checkpoint


def carried_out(backend: Backend, policy: str, made: str, call: Call) -> Any:
    """What the call comes to, or a future of that; ``made`` names what it makes (a pin)."""
    return _CARRIED_OUT[type(call)](backend, policy, made, call)


def carried_out_again(backend: Backend, policy: str, made: str, call: Call) -> Any:
    """The same of a call that may have been carried out before: what it wrote is there, and is not written again."""
    try:
        found = carried_out(backend, policy, made, call)
        return found.result() if isinstance(found, Future) else found
    except CheckpointError:
        if not isinstance(call, Save) or (there := _saved(backend, policy, call)) is None:
            raise
        return there


def _saved(backend: Backend, policy: str, call: Save) -> Checkpoint | None:
    """The checkpoint of that name, if it is of the policy as it is now; which is found out by saving it once more."""
    name = PurePosixPath(call.name)
    twin = backend.save(
        policy, str(name.with_name(f".{name.name}.{uuid4().hex[:8]}")), optimizer=call.optimizer
    ).result()
    folder = Path(twin.path)
    there = folder.with_name(name.name)
    same = _files(folder) == _files(there)
    shutil.rmtree(folder)
    return Checkpoint(there.name, str(there), twin.policy_version, twin.digest) if same else None


def _files(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").digest()
    return found


_CARRIED_OUT: Mapping[type[Any], Callable[[Backend, str, str, Any], Any]] = MappingProxyType(
    {
        Create: lambda backend, policy, _, call: backend.create_policy(policy, call.spec),
        Load: lambda backend, policy, _, call: backend.load_policy(policy, call.checkpoint, optimizer=call.optimizer),
        Forward: lambda backend, policy, _, call: backend.forward(policy, call.data, call.loss),
        ForwardBackward: lambda backend, policy, _, call: backend.forward_backward(policy, call.data, call.loss),
        OptimStep: lambda backend, policy, _, call: backend.optim_step(
            policy, call.optimizer, undoable=call.undoable, empty=call.empty
        ),
        Undo: lambda backend, policy, _, call: backend.undo(policy),
        Pin: lambda backend, policy, made, call: backend.pin(policy, made)[1],
        Save: lambda backend, policy, _, call: backend.save(policy, call.name, optimizer=call.optimizer),
        Restore: lambda backend, policy, _, call: backend.restore(policy, call.checkpoint, optimizer=call.optimizer),
        Close: lambda backend, policy, _, call: backend.close_policy(policy),
    }
)
