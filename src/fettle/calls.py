"""The calls of a policy as data: what is hashed, written into a journal and sent over a wire."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fettle.config import AdamW, LossConfig, PolicySpec
from fettle.errors import ConfigError, DataError
from fettle.frames import Tree, batch_of, batch_tree, packed
from fettle.types import Datum

DIGEST_LENGTH = 32
"""Hexadecimal digits kept of a hash."""


@dataclass(frozen=True, slots=True)
class Create:
    """A policy with the weights of ``spec.model``; it comes to the version."""

    spec: PolicySpec


@dataclass(frozen=True, slots=True)
class Load:
    """A policy as it was saved; it comes to the version."""

    checkpoint: str
    optimizer: bool


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """The loss and log-probabilities."""

    data: Sequence[Datum]
    loss: LossConfig


@dataclass(frozen=True, slots=True, eq=False)
class ForwardBackward:
    """Accumulate the gradient of the weighted sum."""

    data: Sequence[Datum]
    loss: LossConfig


@dataclass(frozen=True, slots=True)
class OptimStep:
    """Apply the accumulated gradients."""

    optimizer: AdamW
    undoable: bool = False
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the last step back."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Keep the weights as they are now to be sampled; it comes to their version."""


@dataclass(frozen=True, slots=True)
class Save:
    """Write a checkpoint."""

    name: str
    optimizer: bool = True


@dataclass(frozen=True, slots=True)
class Restore:
    """Take up a checkpoint's weights in place; it comes to the version."""

    checkpoint: str
    optimizer: bool


@dataclass(frozen=True, slots=True)
class Close:
    """Give the policy's memory back."""


Call = Create | Load | Forward | ForwardBackward | OptimStep | Undo | Pin | Save | Restore | Close

_LOSS: TypeAdapter[LossConfig] = TypeAdapter(LossConfig)


@dataclass(frozen=True, slots=True)
class _Row:
    """One kind of call."""

    kind: type[Any]
    said: Callable[[Any], dict[str, Tree]]
    read: Callable[[Mapping[str, Tree]], Call]


def kind_of(call: Call) -> str:
    """The call's ``type``."""
    return _NAMES[type(call)]


def call_tree(call: Call) -> dict[str, Tree]:
    """The call, with its ``type``."""
    row = _row(call)
    return {"type": _NAMES[row.kind], **row.said(call)}


def call_of(tree: Mapping[str, Tree]) -> Call:
    """The call that :func:`call_tree` said.

    Raises:
        DataError: it is none.
        LossInputError: a datum in it cannot be what it is.
        ConfigError: there is no such loss or setting.
    """
    try:
        row = CALLS[tree["type"]]
        return row.read({name: value for name, value in tree.items() if name != "type"})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"a call of type {tree['type']!r} has settings that cannot be: {'; '.join(wrong)}") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"this is no call of a policy: {error!r}") from error


def call_digest(call: Call) -> str:
    """A hash of everything the call says."""
    return hashlib.sha256(packed(call_tree(call))).hexdigest()[:DIGEST_LENGTH]


def _row(call: Call) -> _Row:
    return CALLS[_NAMES[type(call)]]


def _with_batch(kind: type[Forward | ForwardBackward]) -> _Row:
    return _Row(
        kind,
        lambda call: {"loss": call.loss.model_dump(mode="json"), "data": batch_tree(call.data)},
        lambda tree: kind(batch_of(tree["data"]), _LOSS.validate_python(tree["loss"])),
    )


def _plain(kind: type[Any], *names: str) -> _Row:
    """A call of texts and switches."""
    return _Row(kind, lambda call: {name: getattr(call, name) for name in names}, partial(_of_plain, kind, names))


def _of_plain(kind: type[Any], names: Sequence[str], tree: Mapping[str, Tree]) -> Any:
    for name, value in tree.items():
        if name in names and not isinstance(value, bool if name == "optimizer" else str):
            raise TypeError(f"{name} is {value!r}")
    return kind(**tree)


def _step_of(tree: Mapping[str, Tree]) -> OptimStep:
    switches = {name: tree.get(name, False) is True for name in ("undoable", "empty")}
    return OptimStep(AdamW.model_validate(tree["optimizer"]), **switches)


CALLS: Mapping[str, _Row] = MappingProxyType(
    {
        "create": _Row(
            Create,
            lambda call: {"spec": call.spec.model_dump(mode="json")},
            lambda tree: Create(PolicySpec.model_validate(tree["spec"])),
        ),
        "load": _plain(Load, "checkpoint", "optimizer"),
        "forward": _with_batch(Forward),
        "forward_backward": _with_batch(ForwardBackward),
        "optim_step": _Row(
            OptimStep,
            lambda call: {
                "optimizer": call.optimizer.model_dump(mode="json"),
                "undoable": call.undoable,
                "empty": call.empty,
            },
            _step_of,
        ),
        "undo": _plain(Undo),
        "pin": _plain(Pin),
        "save": _plain(Save, "name", "optimizer"),
        "restore": _plain(Restore, "checkpoint", "optimizer"),
        "close": _plain(Close),
    }
)
"""By the ``type`` in the tree."""

_NAMES = {row.kind: name for name, row in CALLS.items()}
