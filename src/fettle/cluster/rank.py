"""One rank: a process with a local backend in it, which carries out what all ranks are told."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.distributed import TCPStore  # type: ignore[attr-defined]

import fettle
from fettle.cluster.collective import BrokenError, Joined, meeting_place, part
from fettle.cluster.hearing import Drawn, Enough, Kept
from fettle.config import LocalEngine
from fettle.engine.local import LocalBackend
from fettle.engine.local.group import ALONE, Group
from fettle.errors import EngineError, FettleError, StorageError
from fettle.types import Checkpoint, ForwardResult, OptimResult

CONTROL, DRAWING, WRITING = "control", "drawing", "writing"
"""What is answered while the rank computes, what may be computed beside training, and what is written beside it."""

MAKING = frozenset({"create_policy", "load_policy", "revive"})
"""What one rank can fail at and another not: a file that only one of them sees."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a rank is, and what it runs."""

    host: str
    pid: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to on one rank: a result, an error of ours, or why the ranks must meet anew."""

    result: Any = None
    """Of the first rank; of the others, its ``gist``."""
    error: FettleError | None = None
    broken: str | None = None

    def value(self) -> Any:
        """The result; or the error is raised.

        Raises:
            EngineError: the ranks have to meet anew.
        """
        if self.error is not None:
            raise self.error
        if self.broken is not None:
            raise EngineError(f"the ranks lost each other ({self.broken})")
        return self.result


class Rank:
    """A call carries the generation of the group that it is meant for: one of an older group is refused."""

    def __init__(self, settings: LocalEngine, checkpoints: Path, parts: bool, address: Callable[[], str]) -> None:
        """``address`` is asked, where the rank is, for that of its machine."""
        self._address = address
        self._settings = settings
        self._parts = parts
        self._checkpoints = checkpoints
        self._backend: LocalBackend | None = None
        self._generation = -1
        self._first = True
        self._store: TCPStore | None = None
        self._kept = Kept()
        self._saves: dict[str, Future[Checkpoint]] = {}
        """What is being written, by name."""

    def facts(self) -> Facts:
        """Once it answers, it has begun."""
        return Facts(self._address(), os.getpid(), versions())

    def alive(self) -> bool:
        """Answered beside whatever is being computed."""
        return True

    def expect(self) -> int:
        """Be where the others meet; returns the port."""
        part()
        host = self._address()
        self._store = meeting_place(host, kept=True)
        return self._store.port

    def meet(self, generation: int, rank: int, size: int, host: str, port: int) -> None:
        """Join the others, with no policy yet; models that are here stay."""
        part()
        if size == 1:
            group: Group = ALONE
        else:
            store = self._store if rank == 0 else meeting_place(host, port)
            assert store is not None, "the first rank is where the others meet"
            group = Joined(store, rank, size, parts=self._parts)
        if self._backend is None:
            self._backend = LocalBackend(self._settings, checkpoints=self._checkpoints, group=group)
        else:
            self._backend.regroup(group)
        self._generation, self._first = generation, rank == 0

    def carry_out(self, generation: int, operation: str, said: tuple[tuple[Any, ...], dict[str, Any]]) -> Answer:
        """An operation of the backend."""
        return self._answer(generation, operation, said, full=self._first)

    def share(
        self, generation: int, operation: str, said: tuple[tuple[Any, ...], dict[str, Any]] | None, weights: list[str]
    ) -> Answer:
        """The same of something that each rank has a part of, or none, and answers for itself.

        ``weights`` are what all of them read together.
        """
        if operation != "sample" or said is None:
            return self._answer(generation, operation, said, weights, full=True)
        (named, requests), how = said
        with self._kept.keeping(requests) as kept:
            return self._answer(generation, operation, ((named, kept), how), weights, full=True)

    def heard(self, call: str, enough: Enough) -> list[Drawn]:
        """What it has drawn since for watches elsewhere; answered beside whatever is being computed."""
        return self._kept.heard(call, enough)

    def written(self, generation: int, name: str) -> Answer:
        """Once this rank has written what it holds of a checkpoint whose save was carried out."""
        return self._beside(generation, lambda: self._saves.pop(name).result())

    def sealed(self, generation: int, name: str) -> Answer:
        """All ranks have written theirs."""
        return self._beside(generation, lambda: self._held.seal(name))

    @property
    def _held(self) -> LocalBackend:
        assert self._backend is not None, "ranks meet before they work"
        return self._backend

    def _beside(self, generation: int, work: Callable[[], Checkpoint]) -> Answer:
        if generation != self._generation:
            return Answer(broken=f"a call of group {generation} came to a rank of group {self._generation}")
        try:
            return Answer(work())
        except FettleError as error:
            return Answer(error=error)
        except Exception as error:  # noqa: BLE001  whatever it is, who waits for the checkpoint must hear of it
            return Answer(error=StorageError(f"the checkpoint could not be written ({error}): save again"))

    def _answer(
        self,
        generation: int,
        operation: str,
        said: tuple[tuple[Any, ...], dict[str, Any]] | None,
        weights: Sequence[str] = (),
        *,
        full: bool,
    ) -> Answer:
        if generation != self._generation:
            return Answer(broken=f"a call of group {generation} came to a rank of group {self._generation}")
        try:
            with self._held.gathered(weights):
                positional, named = said or ((), {})
                result = None if said is None else getattr(self._held, operation)(*positional, **named)
        except EngineError as error:
            if not self._parts:
                return Answer(error=error)
            part()  # where a model is parted, the others wait for this one in the midst of it
            return Answer(broken=error.message)
        except FettleError as error:
            return Answer(error=error)
        except BrokenError as error:
            return Answer(broken=str(error))
        except Exception as error:  # noqa: BLE001  whatever it is, ranks that wait for this one must hear of it
            part()
            return Answer(broken=f"{type(error).__name__}: {error}")
        if isinstance(result, Future):  # a save, of which ``written`` tells the end
            _, name = positional
            self._saves[name], result = result, None
        return Answer(result if full else gist(result))


def gist(result: Any) -> Any:
    """What must be the same on all ranks, without what is large."""
    if isinstance(result, ForwardResult):
        return result.loss, result.num_tokens
    return (result.policy_version, result.grad_norm) if isinstance(result, OptimResult) else result


def versions() -> dict[str, str]:
    """Of what must be alike on all ranks for them to come to the same numbers."""
    return {
        "Python": platform.python_version(),
        "fettle": fettle.__version__,
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }
