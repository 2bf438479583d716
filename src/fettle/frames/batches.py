"""A batch of data as a ragged struct of arrays, and back.

N tokens of B sequences: ``tokens`` and ``targets`` [N] of int32, ``offsets`` [B + 1], ``loss_mask`` and each stream
[N], ``temperature`` and each scalar [B]. Where only some of the data have a stream or targets, ``has`` says which, and
the others' places are zeros; a scalar that a datum lacks is NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fettle.errors import DataError, LossInputError
from fettle.frames.codec import Tree, bounds
from fettle.types import Datum

MOST = np.iinfo(np.int32).max
ALWAYS = ("offsets", "tokens", "loss_mask", "temperature")
KNOWN = frozenset({*ALWAYS, "group", "streams", "scalars", "targets", "has"})


class Batch(tuple[Datum, ...]):
    """Data with the tree that they were read from, by which they are said again without being put together anew."""

    tree: dict[str, Tree]


def batch_tree(data: Sequence[Datum]) -> dict[str, Tree]:
    """The batch, ready to be packed.

    Raises:
        LossInputError: a token id is beyond what 32 bits hold.
    """
    if isinstance(data, Batch):
        return data.tree
    tree: dict[str, Tree] = {
        "offsets": bounds(len(datum.tokens) for datum in data),
        "tokens": _ids([datum.tokens for datum in data]),
        "loss_mask": _joined([datum.loss_mask for datum in data]),
        "temperature": np.array([datum.temperature for datum in data], np.float64),
    }
    if any(datum.group for datum in data):
        tree["group"] = [datum.group for datum in data]
    has: dict[str, NDArray[np.uint8]] = {}
    names = dict.fromkeys(name for datum in data for name in datum.streams)
    if names:
        tree["streams"] = {name: _stream(name, data, has) for name in names}
    scalars = dict.fromkeys(name for datum in data for name in datum.scalars)
    if scalars:
        tree["scalars"] = {name: np.array([d.scalars.get(name, np.nan) for d in data], np.float64) for name in scalars}
    if any(datum.targets is not None for datum in data):
        given = [datum.targets is not None for datum in data]
        tree["targets"] = _ids([np.zeros_like(d.tokens) if d.targets is None else d.targets for d in data])
        if not all(given):
            has["targets"] = np.array(given, np.uint8)
    if has:
        tree["has"] = has
    return tree


def batch_of(tree: Tree) -> Sequence[Datum]:
    """The batch that :func:`batch_tree` said; lists of numbers may stand where arrays do.

    Raises:
        DataError: it is not one.
        LossInputError: a datum in it cannot be what it is.
    """
    columns = _columns(tree)
    made = Datum.checked_before if columns.sound else Datum
    found = []
    for i in range(columns.size):
        try:
            found.append(columns.datum(i, made))
        except LossInputError as error:
            raise LossInputError(f"datum {i}: {error.message}") from error
    if not columns.whole:
        return found
    batch = Batch(found)
    batch.tree = columns.tree()
    return batch


@dataclass(frozen=True, slots=True)
class _Columns:
    """What stands in a batch, by name, each of the right type and length."""

    offsets: NDArray[np.int64]
    tokens: NDArray[np.int32]
    loss_mask: NDArray[Any]
    temperature: NDArray[np.float64]
    group: list[str]
    streams: dict[str, NDArray[Any]]
    scalars: dict[str, NDArray[Any]]
    targets: NDArray[np.int32] | None
    has: dict[str, NDArray[Any]]

    @property
    def size(self) -> int:
        """Of data."""
        return len(self.group)

    @property
    def sound(self) -> bool:
        """Whether no datum will be refused: all are looked at together, in a third of the time that each would take."""
        return bool(
            self.size
            and np.diff(self.offsets).min() >= 2
            and ((self.loss_mask == 0) | (self.loss_mask == 1)).all()
            and not self.loss_mask[self.offsets[:-1]].any()
            and (self.temperature > 0).all()
            and all(np.isfinite(values).all() for values in self.streams.values())
            and not any(np.isinf(values).any() for values in self.scalars.values())
        )

    @property
    def whole(self) -> bool:
        """Whether the data say these columns and no others: hashes are taken of what :func:`batch_tree` says."""
        return bool(self.size and not self.has and not any(np.isnan(each).all() for each in self.scalars.values()))

    def datum(self, i: int, made: Callable[..., Datum]) -> Datum:
        """One of the data; its arrays are views."""
        own = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        return made(
            self.tokens[own],
            self.loss_mask[own],
            {name: values[own] for name, values in self.streams.items() if self._is_there(name, i)},
            float(self.temperature[i]),
            self.group[i],
            {name: float(values[i]) for name, values in self.scalars.items() if not np.isnan(values[i])},
            self.targets[own] if self.targets is not None and self._is_there("targets", i) else None,
        )

    def tree(self) -> dict[str, Tree]:
        """What :func:`batch_tree` says of the data, if they are whole."""
        tree: dict[str, Tree] = {
            name: getattr(self, name) for name in ("offsets", "tokens", "loss_mask", "temperature")
        }
        if any(self.group):
            tree["group"] = self.group
        tree |= {name: parts for name in ("streams", "scalars") if (parts := getattr(self, name))}
        return tree if self.targets is None else {**tree, "targets": self.targets}

    def _is_there(self, name: str, i: int) -> bool:
        return name not in self.has or bool(self.has[name][i])


def _columns(tree: Tree) -> _Columns:
    if not isinstance(tree, Mapping):
        raise DataError(f"a batch is a mapping of arrays, and this is {type(tree).__name__}")
    if unknown := sorted(set(tree) - KNOWN):
        raise DataError(f"a batch has no {unknown[0]!r}: it has {', '.join(sorted(KNOWN))}")
    offsets = _array("offsets", tree.get("offsets"), np.int64)
    if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise DataError("a batch's offsets must begin with 0 and never fall")
    size, total = len(offsets) - 1, int(offsets[-1])
    groups = tree.get("group", [""] * size)
    if not isinstance(groups, list) or len(groups) != size or not all(isinstance(group, str) for group in groups):
        raise DataError(f"a batch's group must be one text for each of its {size} data")
    return _Columns(
        offsets,
        _array("tokens", tree.get("tokens"), np.int32, total),
        _array("loss_mask", tree.get("loss_mask"), None, total),
        _array("temperature", tree.get("temperature", [1.0] * size), np.float64, size),
        groups,
        {name: _array(name, value, None, total) for name, value in _mapping(tree, "streams").items()},
        {name: _array(name, value, np.float64, size) for name, value in _mapping(tree, "scalars").items()},
        _array("targets", tree["targets"], np.int32, total) if "targets" in tree else None,
        {name: _array(f"has.{name}", value, np.uint8, size) for name, value in _mapping(tree, "has").items()},
    )


def _stream(name: str, data: Sequence[Datum], has: dict[str, NDArray[np.uint8]]) -> NDArray[Any]:
    given = [name in datum.streams for datum in data]
    if not all(given):
        has[name] = np.array(given, np.uint8)
    return _joined([datum.streams.get(name, np.zeros(len(datum.tokens), np.float32)) for datum in data])


def _ids(rows: Sequence[NDArray[Any]]) -> NDArray[np.int32]:
    joined = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    if joined.dtype != np.int32 and len(joined) and (joined.max() > MOST or joined.min() < -MOST):
        raise LossInputError(f"a token id is beyond {MOST}: no vocabulary is so large")
    return joined.astype(np.int32, copy=False)


def _joined(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(rows) if rows else np.zeros(0, np.float32)


def _mapping(tree: Mapping[str, Tree], name: str) -> Mapping[str, Tree]:
    value = tree.get(name, {})
    if not isinstance(value, Mapping):
        raise DataError(f"a batch's {name} must be a mapping of arrays by name")
    return value


def _array(name: str, value: Tree, dtype: type[np.generic] | None, length: int | None = None) -> NDArray[Any]:
    """One row of numbers; without a ``dtype`` floats keep theirs, and all else becomes float32."""
    if value is None:
        raise DataError(f"a batch needs {name}")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iufb":
            raise DataError(f"a batch's {name} must be numbers")
        if dtype is not None and np.issubdtype(dtype, np.integer) and array.dtype.kind == "f" and array.size:
            raise DataError(f"a batch's {name} must be whole numbers")
        wanted = dtype or (array.dtype if array.dtype.kind == "f" and isinstance(value, np.ndarray) else np.float32)
        found = array.astype(wanted, copy=False)
        if found is not array and np.issubdtype(wanted, np.integer) and not np.array_equal(found, array):
            raise DataError(f"a batch's {name} holds numbers beyond what {np.dtype(wanted)} holds")
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"a batch's {name} cannot be read: {error}") from error
    if found.ndim != 1 or (length is not None and len(found) != length):
        raise DataError(f"a batch's {name} has shape {list(found.shape)}, and [{length}] is needed")
    return found
