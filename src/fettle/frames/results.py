"""What an operation came to, as a tree that says its own type, and back."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fettle.errors import DataError, FettleError, by_code
from fettle.frames.codec import Tree, bounds
from fettle.types import Checkpoint, Completion, ForwardResult, OptimResult, PromptReading, Span


@dataclass(frozen=True, slots=True)
class _Row:
    """One type of result."""

    kind: type[Any]
    said: Callable[[Any], dict[str, Tree]]
    read: Callable[[Mapping[str, Tree]], Any]


def result_tree(result: object) -> dict[str, Tree]:
    """The result, with its ``type``; an error of ours is one of them.

    Raises:
        DataError: no operation comes to this.
    """
    for name, row in _RESULTS.items():
        if isinstance(result, row.kind):
            return {"type": name, **row.said(result)}
    raise DataError(f"a {type(result).__name__} is no result of an operation")


def result_of(tree: Tree) -> Any:
    """The result that :func:`result_tree` said.

    Raises:
        DataError: it is none.
    """
    try:
        row = _RESULTS[tree["type"]]
        return row.read({name: value for name, value in tree.items() if name != "type"})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"this is no result of an operation: {error!r}") from error


def _said_forward(result: ForwardResult) -> dict[str, Tree]:
    return {
        "loss": result.loss,
        "metrics": dict(result.metrics),
        "num_tokens": result.num_tokens,
        "logprobs": _ragged(result.logprobs),
        "values": _ragged(result.values),
        "scores": np.array(result.scores, np.float64),
        "seconds": dict(result.seconds),
    }


def _read_forward(tree: Mapping[str, Tree]) -> ForwardResult:
    rows = {name: _rows(tree[name]) for name in ("logprobs", "values")}
    return ForwardResult(**{**tree, **rows, "scores": list(map(float, tree["scores"]))})


def _said_completions(result: Sequence[Completion]) -> dict[str, Tree]:
    tree: dict[str, Tree] = {
        "tokens": _ragged([np.array(c.tokens, np.int32) for c in result], np.int32),
        "logprobs": _ragged([np.array(c.logprobs, np.float64) for c in result], np.float64),
        "stop_reason": [c.stop_reason for c in result],
        "policy_version": [c.policy_version for c in result],
    }
    if any(c.untempered_logprobs is not None for c in result):
        tree["untempered_logprobs"] = _ragged([np.array(c.untempered_logprobs or [], np.float64) for c in result])
    if any(c.top is not None for c in result):
        tree["top"] = [c.top for c in result]
    if any(len(c.spans) > 1 for c in result):
        tree["spans"] = [list(map(list, c.spans)) for c in result]
    return tree


def _read_completions(tree: Mapping[str, Tree]) -> list[Completion]:
    columns = {name: _rows(tree[name]) for name in ("tokens", "logprobs")}
    untempered = _rows(tree["untempered_logprobs"]) if "untempered_logprobs" in tree else None
    top, spans = tree.get("top"), tree.get("spans")
    return [
        Completion(
            tokens=columns["tokens"][i].tolist(),
            logprobs=columns["logprobs"][i].tolist(),
            stop_reason=reason,
            policy_version=version,
            untempered_logprobs=None if untempered is None else untempered[i].tolist(),
            top=None if top is None or top[i] is None else [[(int(t), float(p)) for t, p in at] for at in top[i]],
            spans=() if spans is None else tuple(Span(*span) for span in spans[i]),
        )
        for i, (reason, version) in enumerate(zip(tree["stop_reason"], tree["policy_version"], strict=True))
    ]


def _said_error(error: FettleError) -> dict[str, Tree]:
    retry = getattr(error, "retry_after", None)
    return {"code": error.code, "message": error.message} | ({} if retry is None else {"retry_after": retry})


def _read_error(tree: Mapping[str, Tree]) -> FettleError:
    error = by_code(tree["code"])(tree["message"])
    if "retry_after" in tree:
        error.retry_after = tree["retry_after"]  # type: ignore[attr-defined]
    return error


def _fields(kind: type[Any]) -> _Row:
    """A dataclass, field by field."""
    names = [field.name for field in fields(kind)]
    return _Row(kind, lambda result: {name: getattr(result, name) for name in names}, lambda tree: kind(**tree))


def _ragged(rows: Sequence[NDArray[Any]], dtype: type[np.generic] | None = None) -> dict[str, Tree]:
    """Rows end to end, and where each begins."""
    joined = np.concatenate(rows) if len(rows) else np.zeros(0, dtype or np.float32)
    return {"values": joined, "offsets": bounds(map(len, rows))}


def _rows(tree: Mapping[str, Tree]) -> list[NDArray[Any]]:
    values, offsets = np.asarray(tree["values"]), np.asarray(tree["offsets"])
    return [values[start:end] for start, end in itertools.pairwise(offsets)]


_RESULTS: Mapping[str, _Row] = MappingProxyType(
    {
        "forward": _Row(ForwardResult, _said_forward, _read_forward),
        "step": _fields(OptimResult),
        "checkpoint": _fields(Checkpoint),
        "completions": _Row(list, _said_completions, _read_completions),
        "reading": _fields(PromptReading),
        "embedding": _Row(np.ndarray, lambda values: {"values": values}, lambda tree: np.asarray(tree["values"])),
        "version": _Row(int, lambda version: {"version": version}, lambda tree: tree["version"]),
        "nothing": _Row(type(None), lambda _: {}, lambda _: None),
        "error": _Row(FettleError, _said_error, _read_error),
    }
)
"""By the ``type`` in the tree. A list is of completions, a whole number a policy version."""
