"""Everything that a policy is at one moment: written into a folder, and read from it to the same bits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fettle.config import PolicySpec
from fettle.engine.local import checkpoint
from fettle.engine.local.memory import enough_memory

STATE, TENSORS = "snapshot.json", "snapshot.safetensors"


@dataclass(frozen=True, slots=True)
class Moment:
    """A policy as it is now. The weights beside an adapter are no part of it: they are those of ``spec.model``.

    N numbers are trained, laid end to end.
    """

    spec: PolicySpec
    version: int
    calls: int
    """Since the last step."""
    pins: Mapping[str, int]
    """The version of each."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of what is trained, in the order in which it lies."""
    values: Tensor  # [N]
    gradients: Tensor | None  # [N]
    moments: dict[str, Tensor]
    """The optimizer's state as it is held."""
    before: tuple[Tensor, dict[str, Tensor]] | None
    """What an undo goes back to: values and moments."""
    past: Mapping[int, Tensor]
    """Pinned values by version, of those that were copied."""


def write(moment: Moment, folder: Path) -> None:
    """Into a folder that does not exist yet; whole and on the disk when this returns, or not there at all.

    Raises:
        CheckpointError: the folder exists.
        StorageError: something could not be written.
    """
    state = {
        "spec": moment.spec.model_dump(mode="json"),
        "version": moment.version,
        "calls": moment.calls,
        "pins": dict(moment.pins),
        "shapes": dict(moment.shapes),
        "undoable": moment.before is not None,
    }
    with checkpoint.writing(folder) as scratch:
        safetensors.torch.save_file(_named(moment), scratch / TENSORS)
        (scratch / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")


def read(folder: Path, device: torch.device) -> Moment:
    """What was written there.

    Raises:
        CheckpointError: it is not whole, or was altered.
        EngineError: there is not enough memory.
    """
    checkpoint.verify(folder)
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    with enough_memory("to read a snapshot", "close another policy"):
        found = safetensors.torch.load_file(folder / TENSORS)
        # Copied, since what is read shares its memory with the file.
        tensors = {name: value.to(device, copy=True) for name, value in found.items()}
    before = _under("before/", tensors)
    return Moment(
        spec=PolicySpec.model_validate(state["spec"]),
        version=state["version"],
        calls=state["calls"],
        pins=state["pins"],
        shapes={name: tuple(shape) for name, shape in state["shapes"].items()},
        values=tensors["values"],
        gradients=tensors.get("gradients"),
        moments=_under("moments/", tensors),
        before=(tensors["values before"], before) if state["undoable"] else None,
        past={int(version): buffer for version, buffer in _under("past/", tensors).items()},
    )


def _named(moment: Moment) -> dict[str, Tensor]:
    named = {"values": moment.values}
    if moment.gradients is not None:
        named["gradients"] = moment.gradients
    named |= {f"moments/{name}": value for name, value in moment.moments.items()}
    if moment.before is not None:
        values, moments = moment.before
        named["values before"] = values
        named |= {f"before/{name}": value for name, value in moments.items()}
    return named | {f"past/{version}": buffer for version, buffer in moment.past.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
