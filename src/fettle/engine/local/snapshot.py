"""Everything that a policy is at one moment: written into a folder, and read from it to the same bits.

Every rank writes what it has, and reads what it will have, however many they are.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fettle.config import PolicySpec
from fettle.engine.local import checkpoint, pieces
from fettle.engine.local.flat import Flat
from fettle.engine.local.group import Group, agreed
from fettle.engine.local.pieces import Piece, Rows
from fettle.errors import CheckpointError

STATE, TENSORS = "snapshot.json", "snapshot.safetensors"

WITHIN = ": "
"""Between what a tensor is of, and the parameter that it belongs to."""


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
    values: Tensor  # [N]
    gradients: Tensor | None  # [N]
    moments: Mapping[str, Tensor]
    """The optimizer's state as it is held."""
    before: tuple[Tensor, dict[str, Tensor]] | None
    """What an undo goes back to: values and moments."""
    past: Mapping[int, Tensor]
    """Pinned values by version, of those that were copied."""


def write(moment: Moment, flat: Flat, folder: Path, group: Group) -> None:
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
        "shapes": {name: rows.shape for name, rows in flat.rows.items()},
        "undoable": moment.before is not None,
    }
    draft = checkpoint.Draft(folder)

    def begin() -> None:
        if group.rank == 0:
            draft.begin()

    def tensors() -> None:
        with draft.or_nothing():
            pieces.write(draft.scratch / TENSORS, dict(_pieces(moment, flat)), group)

    def seal() -> None:
        if group.rank == 0:
            with draft.or_nothing():
                (draft.scratch / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
                draft.seal()

    for work in (begin, tensors, seal):
        agreed(group, work)


def spec_of(folder: Path) -> PolicySpec:
    """Of which policy it was taken.

    Raises:
        CheckpointError: it is not whole, or was altered.
    """
    checkpoint.verify(folder)
    return PolicySpec.model_validate(_state(folder)["spec"])


def read(folder: Path, flat: Flat) -> Moment:
    """What was written there, as it lies in ``flat``.

    Raises:
        CheckpointError: it was taken of a policy with other layers.
    """
    state = _state(folder)
    shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}
    if shapes != {name: rows.shape for name, rows in flat.rows.items()}:
        raise CheckpointError(
            f"the snapshot {folder} was taken of a policy with other layers than its model gives it now: "
            "put the model back that it was taken with"
        )

    def rows(name: str) -> Rows | None:
        return flat.rows.get(name.partition(WITHIN)[2])

    named: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in pieces.read(folder / TENSORS, rows, flat.values.device).items():
        of, _, parameter = name.partition(WITHIN)
        named[of][parameter] = value
    found = {of: flat.laid(values) if "" not in values else values[""] for of, values in named.items()}
    before = _under("before/", found)
    return Moment(
        spec=PolicySpec.model_validate(state["spec"]),
        version=state["version"],
        calls=state["calls"],
        pins=state["pins"],
        values=found["values"],
        gradients=found.get("gradients"),
        moments=_under("moments/", found),
        before=(found["values before"], before) if state["undoable"] else None,
        past={int(version): buffer for version, buffer in _under("past/", found).items()},
    )


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def _pieces(moment: Moment, flat: Flat) -> Iterator[tuple[str, Piece]]:
    """Buffers by parameter; what is no buffer under its own name."""
    for of, tensor in _named(moment).items():
        if tensor.shape != flat.values.shape:
            yield of, (tensor, Rows(tuple(tensor.shape)))
            continue
        for parameter, own in flat.views(tensor).items():
            yield f"{of}{WITHIN}{parameter}", (own, flat.rows[parameter])


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
