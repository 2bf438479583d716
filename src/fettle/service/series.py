"""A series of a run: rows in a file that grows by lines, written once a step and read from where they are wanted."""

import asyncio
import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fettle.errors import StorageError, TooLargeError
from fettle.tracking.atomic import unwritable
from fettle.tracking.lines import object_of, opened, read_lines, write

STRIDE = 1 << 16
"""Bytes between two places of a file that are remembered."""


class _Place(NamedTuple):
    greatest: float
    """Of the steps of all lines before."""
    offset: int


class Series:
    """One file; its methods wait for the disk, and are called one at a time by whoever holds ``turn``."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        self.turn = asyncio.Lock()
        self._path = path
        self._most_bytes = most_bytes
        self._places = [_Place(-math.inf, 0)]
        self._newest: int | None = None
        """The last step that the service itself told of; None: the file was not read for it."""
        self._whole = False
        """Whether this process has written to it, and its last line is whole."""

    def after(self, step: int) -> list[dict[str, Any]]:
        """The rows of the steps after one, oldest first; one that is cut short is passed over."""
        return [row for row, _ in self._after(step)]

    def page(self, step: int, *, skip: int, most: int, most_bytes: int) -> tuple[list[dict[str, Any]], bool]:
        """The same without the first few, up to so many rows and about so many bytes; and whether there are more."""
        found: list[dict[str, Any]] = []
        nbytes = 0
        for number, (row, size) in enumerate(self._after(step)):
            if number < skip:
                continue
            if len(found) >= most or nbytes >= most_bytes:
                return found, True
            found.append(row)
            nbytes += size
        return found, False

    def _after(self, step: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Each row, and how long its line is."""
        # Everything before the place belongs to no later step; whole lines behind it are read.
        greatest, offset = self._places[bisect_right(self._places, float(step), key=_greatest) - 1]
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    offset += len(line)
                    if (row := object_of(line)) is not None:
                        greatest = max(greatest, row["step"])
                        if row["step"] > step:
                            yield row, len(line)
                    if line.endswith(b"\n") and offset >= self._places[-1].offset + STRIDE:
                        self._places.append(_Place(greatest, offset))
        except FileNotFoundError:
            return

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of a client's own.

        Raises:
            StorageError: the file cannot be written.
            TooLargeError: it holds as much as clients may put into it.
        """
        lines = _lines(rows)
        held = self._path.stat().st_size if self._path.is_file() else 0
        if held + len(lines) > self._most_bytes:
            mib = self._most_bytes / 2**20
            raise TooLargeError(f"{self._path.stem} of a run may be {mib:g} MiB, and there are {held / 2**20:.1f}")
        self._write(lines)

    def add_step(self, row: Mapping[str, Any]) -> None:
        """The row of a step; one that is carried out again after a crash is told once.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._newest is None:
            told = [each["step"] for each in read_lines(self._path) if "policy/grad_norm" in each]
            self._newest = max(told, default=-1)
        if row["step"] > self._newest:
            self._write(_lines([row]))
            self._newest = row["step"]

    def forget(self) -> None:
        """Let go of the places: whoever reads again begins at the beginning."""
        self._places = self._places[:1]

    def _write(self, lines: bytes) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) if self._whole else opened(self._path) as file:
                self._whole = False
                write(file, lines)
                self._whole = True
        except OSError as error:
            raise StorageError(unwritable(self._path, error)) from error


def _greatest(place: _Place) -> float:
    return place.greatest


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)
