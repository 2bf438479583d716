"""The policy that a router is to ask: the one in use in a registry, or a run's, read anew when it changes."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fettle.config.routing import RoutingConfig
from fettle.errors import CheckpointError, TimeoutError
from fettle.router.files import POLICY
from fettle.router.opinions import Opinion, opinion
from fettle.router.policy import RouterPolicy, load_policy
from fettle.router.registry import IN_USE, check_size, in_use

LOAD_S = 5.0
"""How long files may take to be read, whether a router begins or another policy has come into use."""

Mark = tuple[int, int, int]
"""Of a file that is replaced whole: it is another when this is."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What is in use, if anything is."""

    mark: Mark
    version: int | None = None
    policy: RouterPolicy | None = None


class Adviser:
    """Answers with what the policy in use says. Only one thread may ask it.

    While another policy is being read, the one before answers, for ``LOAD_S`` at most.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._folder = None if config.policy is None else Path(config.policy)
        self._registry = Path(config.registry)
        self._reload_s = config.reload_s
        self._patience_s = config.time_limit_s / 2
        self._looked_at = -float("inf")
        self._began_at = 0.0
        self._looking: Future[_Loaded] | None = None
        self._loaded: _Loaded | None = None

    def __call__(self, task: Mapping[str, float] | None) -> Opinion | None:
        """What the policy says of a task; None where none is in use, or where it is only to be loaded.

        Raises:
            CheckpointError: it cannot be loaded, or says what is not finite.
            TimeoutError: its files take too long to be read.
            DataError: the task lacks a feature.
        """
        loaded = self._lately()
        if loaded.policy is None or task is None:
            return None
        return opinion(loaded.policy, task, loaded.version)

    def _lately(self) -> _Loaded:
        """What was in use when it was last looked."""
        if self._looking is None:
            if self._loaded is not None and time.monotonic() < self._looked_at + self._reload_s:
                return self._loaded
            self._looking, self._began_at = _begun(partial(self._look, self._loaded)), time.monotonic()
            patience = LOAD_S if self._loaded is None else self._patience_s
        else:
            patience = 0.0
        try:
            self._looking.exception(patience)
        except NotYetError:
            if self._loaded is not None and time.monotonic() < self._began_at + LOAD_S:
                return self._loaded
            self._loaded = None
            raise TimeoutError(f"its files took longer than {LOAD_S:g} s to be read") from None
        looked, self._looking, self._loaded = self._looking, None, None
        self._loaded = looked.result()
        self._looked_at = time.monotonic()
        return self._loaded

    def _look(self, before: _Loaded | None) -> _Loaded:
        """What is in use now; not read again where it is what it was."""
        mark = _mark(self._registry / IN_USE if self._folder is None else self._folder / POLICY)
        if before is not None and mark == before.mark:
            return before
        if self._folder is not None:
            check_size(self._folder)
            return _Loaded(mark, None, load_policy(self._folder))
        found = in_use(self._registry)
        return _Loaded(mark) if found is None else _Loaded(mark, *found)


def _begun(look: Callable[[], _Loaded]) -> "Future[_Loaded]":
    """A look under way in a thread of its own, for files may hang for good."""
    future: Future[_Loaded] = Future()

    def work() -> None:
        try:
            future.set_result(look())
        except BaseException as error:  # noqa: BLE001  whoever waits is told
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def _mark(path: Path) -> Mark:
    try:
        seen = path.stat()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): promote a policy, or name where one is"
        ) from error
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
