"""Arrays of the Tinker API, in protobuf and in JSON: dense, or sparse rows (CSR)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fettle.errors import LossInputError
from fettle.service.faces.tinker import tinker_wire_pb2 as wire

Array = NDArray[Any]

DTYPES: Mapping[wire.DType, str] = MappingProxyType(
    {wire.DTYPE_FLOAT32: "<f4", wire.DTYPE_INT64: "<i8", wire.DTYPE_INT32: "<i4"}
)
NAMES: Mapping[str, str] = MappingProxyType({"float32": "<f4", "int64": "<i8"})

MOST_CELLS = 1 << 22
"""The largest array that sparse rows may stand for: a few bytes can claim any shape."""


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """The cells of a [rows, columns] array that are listed; ``crow[i]:crow[i + 1]`` are those of row i."""

    values: Array
    crow: NDArray[np.int64]
    col: NDArray[np.int64]
    shape: tuple[int, int]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each cell."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.crow))

    def dense(self) -> Array:
        """The whole array, 0 where nothing is listed.

        Raises:
            LossInputError: it would be too large.
        """
        if math.prod(self.shape) > MOST_CELLS:
            raise LossInputError(f"a sparse tensor of shape {list(self.shape)} has more than {MOST_CELLS} cells")
        whole = np.zeros(self.shape, self.values.dtype)
        whole[self.rows, self.col] = self.values
        return whole


def of_proto(name: str, tensor: wire.Tensor) -> Array | Sparse:
    """An array as ``forward_backward`` sends it.

    Raises:
        LossInputError: its bytes are not what its type and shape say.
    """
    if tensor.dtype not in DTYPES:
        raise LossInputError(f"{name} has no dtype that is known: send float32 or int64")
    if tensor.HasField("sparse_csr"):
        csr = tensor.sparse_csr
        values = _numbers(name, csr.values, DTYPES[tensor.dtype])
        crow, col = (_numbers(name, part, "<i8") for part in (csr.crow_indices, csr.col_indices))
        return _sparse(name, values, crow, col, list(tensor.shape))
    return _shaped(name, _numbers(name, tensor.dense, DTYPES[tensor.dtype]), list(tensor.shape))


def of_json(name: str, tree: Any) -> Array | Sparse:
    """An array as JSON sends it: ``{"data": [...], "dtype", "shape"?, "sparse_crow_indices"?, "sparse_col_indices"?}``.

    Raises:
        LossInputError: it is none.
    """
    if not isinstance(tree, Mapping) or str(tree.get("dtype")) not in NAMES:
        raise LossInputError(f"{name} must be an object with data and a dtype, which is float32 or int64")
    values = _listed(name, tree.get("data"), NAMES[str(tree["dtype"])])
    shape = tree.get("shape")
    if shape is not None and not _is_shape(shape):
        raise LossInputError(f"{name} has a shape that is no list of whole numbers")
    if tree.get("sparse_crow_indices") is None:
        return _shaped(name, values, shape or [len(values)])
    crow, col = (_listed(name, tree.get(f"sparse_{part}_indices"), "<i8") for part in ("crow", "col"))
    return _sparse(name, values, crow, col, shape or [])


def put(tensor: wire.Tensor, value: Array | Sparse) -> None:
    """Write an array into a message, in the layout it has."""
    values = value.values if isinstance(value, Sparse) else value
    kinds = {np.dtype(kind): number for number, kind in DTYPES.items()}
    tensor.dtype = kinds[values.dtype]
    tensor.shape.extend(value.shape)
    if isinstance(value, Sparse):
        csr = tensor.sparse_csr
        csr.values, csr.crow_indices, csr.col_indices = (
            part.tobytes() for part in (value.values, value.crow, value.col)
        )
    else:
        tensor.dense = value.tobytes()


def as_json(value: Array | Sparse) -> dict[str, Any]:
    """An array as JSON says it."""
    values = value.values if isinstance(value, Sparse) else value
    told = {"data": values.ravel().tolist(), "dtype": "float32" if values.dtype.kind == "f" else "int64"}
    told["shape"] = list(value.shape)
    if isinstance(value, Sparse):
        told |= {"sparse_crow_indices": value.crow.tolist(), "sparse_col_indices": value.col.tolist()}
    return told


def _numbers(name: str, raw: bytes, kind: str) -> Array:
    if len(raw) % np.dtype(kind).itemsize:
        raise LossInputError(f"{name} has {len(raw)} bytes, which is no whole number of {np.dtype(kind).name} values")
    return np.frombuffer(raw, kind)


def _listed(name: str, values: Any, kind: str) -> Array:
    try:
        found = np.asarray(values if values is not None else "nothing")
        if found.ndim != 1 or (found.size and found.dtype.kind not in ("iu" if "i" in kind else "iuf")):
            raise ValueError("a flat list of numbers is needed")
        return found.astype(kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise LossInputError(f"{name} cannot be read: {error}") from error


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**31 for size in shape)


def _shaped(name: str, values: Array, shape: Sequence[int]) -> Array:
    wanted = list(shape) or [len(values)]
    if min(wanted) < 0 or math.prod(wanted) != len(values):
        raise LossInputError(f"{name} has {len(values)} values, and its shape is {wanted}")
    return values.reshape(wanted)


def _sparse(name: str, values: Array, crow: Array, col: Array, shape: Sequence[int]) -> Sparse:
    if len(shape) != 2 or min(shape) < 0:
        raise LossInputError(f"{name} is sparse and has shape {list(shape)}: two dimensions are needed")
    rows, columns = shape
    steps = np.diff(crow)
    whole = len(crow) == rows + 1 and len(col) == len(values) and crow[0] == 0 and crow[-1] == len(values)
    if not whole or (steps < 0).any() or (col < 0).any() or (col >= columns).any():
        raise LossInputError(f"{name} is sparse, and its row and column indices do not fit its shape {[rows, columns]}")
    return Sparse(values, crow, col, (rows, columns))
