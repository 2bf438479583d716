"""What this face tells of runs, samplers, checkpoints and promises."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from fettle.broker import Promise
from fettle.errors import EngineError, FettleError
from fettle.frames import Tree, result_tree
from fettle.service.core import Service
from fettle.service.entries import CheckpointEntry, Run, SamplerEntry
from fettle.service.folders import told as discreetly
from fettle.types import Checkpoint


def run_tree(service: Service, run: Run) -> dict[str, Tree]:
    """A run, with how its policy stands."""
    info = service.broker.policies().get(run.id)
    return {
        "id": run.id,
        "name": run.name,
        "base_model": run.model,
        "checkpoint": run.checkpoint or None,
        "state": run.state,
        "reason": discreetly(run.reason),
        "version": info.version if info is not None else None,
        "incarnation": info.incarnation if info is not None else None,
        "next_seq": info.next_seq if info is not None else None,
        "parked": info.parked if info is not None else None,
        "created_at": _time(run.created_at),
        "changed_at": _time(run.changed_at),
        "session": run.session or None,
        "metadata": dict(run.metadata),
        "spec": run.spec.model_dump(mode="json"),
    }


def sampler_tree(entry: SamplerEntry) -> dict[str, Tree]:
    """A sampler, with the version of its weights."""
    return {
        "id": entry.id,
        "base_model": entry.model,
        "checkpoint": entry.checkpoint or None,
        "version": entry.live.policy_version,
        "created_at": _time(entry.created_at),
        "session": entry.session or None,
    }


def checkpoint_tree(service: Service, entry: CheckpointEntry) -> dict[str, Tree]:
    """A checkpoint."""
    return {
        "id": entry.id,
        "uri": service.uri_of(entry.path),
        "run_id": entry.run,
        "kind": entry.kind,
        "name": entry.name,
        "base_model": entry.model,
        "optimizer": entry.optimizer,
        "version": entry.policy_version,
        "digest": entry.digest,
        "bytes": entry.nbytes,
        "public": entry.public,
        "created_at": _time(entry.created_at),
        "expires_at": _time(entry.expires_at),
        "stored_at": _time(entry.stored_at),
        "metadata": dict(entry.metadata),
    }


def promise_tree(service: Service, promise: Promise) -> dict[str, Tree]:
    """How a promise stands: pending, completed with its result, or failed with its error."""
    told: dict[str, Tree] = {"id": promise.id, "kind": promise.kind}
    if not promise.done:
        return {**told, "status": "pending"}
    answer = promise.answer
    if isinstance(answer, BaseException):
        if not isinstance(answer, FettleError):
            answer = EngineError(f"the engine failed at this {promise.kind} ({type(answer).__name__}): see its log")
        error = {name: value for name, value in result_tree(answer).items() if name != "type"}
        return {**told, "status": "failed", "error": {**error, "message": discreetly(answer.message)}}
    return {**told, "status": "completed", "seconds": promise.seconds, "result": _result(service, answer)}


def _result(service: Service, answer: Any) -> Mapping[str, Tree]:
    """A checkpoint is named by its address: nobody outside needs to know of folders."""
    if isinstance(answer, Checkpoint):
        uri = service.uri_of(answer.path)
        answer = replace(answer, path=uri, name=uri.rpartition("/")[2])
    return result_tree(answer)


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
