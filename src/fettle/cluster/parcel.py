"""Weights on their way to samplers: the tensors of a checkpoint's folder, each with a checksum."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fettle.engine.local import checkpoint

Bytes = NDArray[np.uint8]

IN = ": "
"""Between a file and what is in it."""


@dataclass(frozen=True)
class Parcel:
    """Weights of one version. ``name`` was never used before, and never will be again."""

    name: str
    policy: str
    version: int
    folder: Path
    """A checkpoint, as the engine saved it."""

    @cached_property
    def pieces(self) -> dict[str, Bytes]:
        """What is in the folder, by name: see :func:`pieces`.

        Raises:
            CheckpointError: it is not what was saved.
        """
        checkpoint.verify(self.folder)
        return pieces(self.folder)

    @cached_property
    def sums(self) -> dict[str, str]:
        """The checksum of each piece."""
        return {name: checksum(piece) for name, piece in self.pieces.items()}

    @property
    def adapter(self) -> bool:
        """Whether it is an adapter beside a model that samplers have."""
        return (self.folder / "adapter_config.json").is_file()

    @property
    def nbytes(self) -> int:
        """How much there is to send."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def pieces(folder: Path) -> dict[str, Bytes]:
    """The tensors of each safetensors file, in the order in which they lie, after its header; other files whole.

    They are read into memory: what becomes of the files afterwards does not change them.
    """
    found: dict[str, Bytes] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, whole = path.relative_to(folder).as_posix(), np.fromfile(path, dtype=np.uint8)
        if path.suffix != ".safetensors":
            found[name] = whole
            continue
        begin = 8 + int.from_bytes(whole[:8].tobytes(), "little")
        spans = json.loads(whole[8:begin].tobytes())
        spans.pop("__metadata__", None)
        found[name + IN + "header"] = whole[:begin]
        for tensor, span in sorted(spans.items(), key=lambda each: each[1]["data_offsets"]):
            start, end = span["data_offsets"]
            found[name + IN + tensor] = whole[begin + start : begin + end]
    return found


def unpack(order: Iterable[str], received: Mapping[str, Bytes], folder: Path) -> None:
    """Write pieces, in the order in which they were packed, as the files that they are of."""
    for name in order:
        path = folder / name.partition(IN)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(received[name].data)


def refused(sums: Mapping[str, str], received: Mapping[str, Bytes]) -> list[str]:
    """Which pieces have not come, or not as they were sent."""
    return [name for name, sum in sums.items() if name not in received or checksum(received[name]) != sum]


def checksum(piece: Bytes) -> str:
    """Of the bytes and how many they are."""
    return blake2b(np.ascontiguousarray(piece).data, digest_size=16).hexdigest()
