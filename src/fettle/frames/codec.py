"""A frame: a JSON document whose arrays stand behind it as raw bytes.

::

    "FTL1"   u32 length of the header   header, JSON: {"tree": ..., "arrays": [[type, shape, place], ...]}
    the arrays' bytes, little-endian, each at a multiple of 8 from the end of the header

In the tree an array is ``{"$": index}``. Numbers keep their type and their bits.
"""

import itertools
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from fettle.errors import DataError

MEDIA_TYPE = "application/vnd.fettle.frame"
"""What a frame is called on the wire."""

MAGIC = b"FTL1"
ALIGNMENT = 8
ARRAY = "$"
TYPES = frozenset({"<i4", "<i8", "<f4", "<f8", "|u1"})

Tree = Any
"""What JSON can say, and numpy arrays in it."""

_LEAVES = frozenset({str, int, float, bool, type(None)})


def packed(tree: Tree) -> bytes:
    """The tree as one frame.

    Raises:
        DataError: it holds what neither JSON nor a frame's arrays can say.
    """
    arrays: list[NDArray[Any]] = []
    outline = _without_arrays(tree, arrays)
    listed, place = [], 0
    for array in arrays:
        listed.append([array.dtype.str, list(array.shape), place])
        place += _aligned(array.nbytes)
    try:
        header = to_json({"tree": outline, "arrays": listed}, inf_nan_mode="constants")
    except ValueError as error:
        raise DataError(f"this cannot be said in a frame: {error}") from error
    header += b" " * (-(len(MAGIC) + 4 + len(header)) % ALIGNMENT)
    parts = [MAGIC, struct.pack("<I", len(header)), header]
    for array in arrays:
        parts += [array.tobytes(), b"\0" * (_aligned(array.nbytes) - array.nbytes)]
    return b"".join(parts)


def unpacked(frame: bytes | memoryview) -> Tree:
    """The tree of a frame; its arrays are views of the frame's bytes, and cannot be written to.

    Raises:
        DataError: these are not the bytes of a whole frame.
    """
    if len(frame) < len(MAGIC) + 4 or bytes(frame[: len(MAGIC)]) != MAGIC:
        raise DataError(f"this is no frame: it does not begin with {MAGIC.decode()} and a length")
    (length,) = struct.unpack_from("<I", frame, len(MAGIC))
    start = len(MAGIC) + 4
    if start + length > len(frame):
        raise DataError(f"a frame's header has {length} bytes, and {len(frame) - start} are here: it was cut off")
    try:
        header = from_json(bytes(frame[start : start + length]))
        tree, listed = header["tree"], header["arrays"]
        arrays = [_array(frame, start + length, *entry) for entry in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"a frame's header cannot be read: {error}") from error
    return _with_arrays(tree, arrays)


def plain(tree: Tree) -> Tree:
    """The same tree with lists in the place of arrays, as JSON shows it to people; NaN becomes null."""
    if isinstance(tree, np.ndarray):
        return _nullified(tree.tolist()) if tree.dtype.kind == "f" else tree.tolist()
    if isinstance(tree, Mapping):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def bounds(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Where each of so many pieces, end to end, begins; and last, where they end."""
    return np.array([*itertools.accumulate(lengths, initial=0)], np.int64)


def _nullified(values: Tree) -> Tree:
    if isinstance(values, list):
        return [_nullified(value) for value in values]
    return values if math.isfinite(values) else None


def _without_arrays(tree: Tree, arrays: list[NDArray[Any]]) -> Tree:
    """The tree with references; the arrays it refers to are put to the others."""
    kind = type(tree)
    if kind in _LEAVES:
        return tree
    if isinstance(tree, np.ndarray):
        arrays.append(_little_endian(tree))
        return {ARRAY: len(arrays) - 1}
    if kind is dict or isinstance(tree, Mapping):
        if ARRAY in tree:
            raise DataError(f"a frame's mapping cannot have the key {ARRAY!r}")
        return {key: v if type(v) in _LEAVES else _without_arrays(v, arrays) for key, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [v if type(v) in _LEAVES else _without_arrays(v, arrays) for v in tree]
    if not isinstance(tree, str | int | float):
        raise DataError(f"a frame cannot say a {type(tree).__name__}: use what JSON has, or an array")
    return tree


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.str not in TYPES:
        kind = array.dtype.newbyteorder("<")
        if kind.str not in TYPES:
            raise DataError(f"a frame holds no arrays of {array.dtype}: use int32, int64, float32, float64 or uint8")
        array = array.astype(kind)
    return np.ascontiguousarray(array) if array.ndim else array


def _with_arrays(tree: Tree, arrays: list[NDArray[Any]]) -> Tree:
    if type(tree) in _LEAVES:
        return tree
    if isinstance(tree, dict):
        if tree.keys() == {ARRAY}:
            index = tree[ARRAY]
            if not isinstance(index, int) or not 0 <= index < len(arrays):
                raise DataError(f"a frame's tree refers to array {index!r}, and there are {len(arrays)}")
            return arrays[index]
        return {key: v if type(v) in _LEAVES else _with_arrays(v, arrays) for key, v in tree.items()}
    if isinstance(tree, list):
        return [v if type(v) in _LEAVES else _with_arrays(v, arrays) for v in tree]
    return tree


def _array(frame: bytes | memoryview, start: int, kind: str, shape: list[int], place: int) -> NDArray[Any]:
    if kind not in TYPES:
        raise DataError(f"a frame holds no arrays of type {kind!r}")
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, place)):
        raise DataError(f"a frame's array has shape {shape} at {place!r}: whole numbers from 0 are needed")
    count, dtype = math.prod(shape), np.dtype(kind)
    if start + place + count * dtype.itemsize > len(frame):
        raise DataError(f"a frame's array of shape {shape} ends beyond its {len(frame)} bytes: it was cut off")
    if not count:
        return np.zeros(shape, dtype)
    return np.frombuffer(frame, dtype, count, start + place).reshape(shape)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
