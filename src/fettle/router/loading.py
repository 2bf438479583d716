"""The policy that a router is to ask: the one in use in a registry, or a run's, read anew when it changes."""

import time
from collections.abc import Mapping
from pathlib import Path

from fettle.config.routing import RoutingConfig
from fettle.errors import CheckpointError
from fettle.router.files import POLICY
from fettle.router.opinions import Opinion, opinion
from fettle.router.policy import RouterPolicy, load_policy
from fettle.router.registry import IN_USE, in_use

Mark = tuple[int, int, int]
"""Of a file that is replaced whole: it is another when this is."""


class Adviser:
    """Answers with what the policy in use says; slow where its files are. Only one thread may ask it."""

    def __init__(self, config: RoutingConfig) -> None:
        self._folder = None if config.policy is None else Path(config.policy)
        self._registry = Path(config.registry)
        self._reload_s = config.reload_s
        self._mark: Mark | None = None
        self._looked_at = -float("inf")
        self._version: int | None = None
        self._policy: RouterPolicy | None = None

    def __call__(self, task: Mapping[str, float] | None) -> Opinion | None:
        """What the policy says of a task; None where none is in use, or where it is only to be loaded.

        Raises:
            CheckpointError: it cannot be loaded, or says what is not finite.
            DataError: the task lacks a feature.
        """
        if time.monotonic() >= self._looked_at + self._reload_s:
            self._load()
        if self._policy is None or task is None:
            return None
        return opinion(self._policy, task, self._version)

    def _load(self) -> None:
        watched = self._registry / IN_USE if self._folder is None else self._folder / POLICY
        mark = _mark(watched)
        if mark != self._mark:
            self._mark, self._policy, self._version = None, None, None
            if self._folder is not None:
                self._policy = load_policy(self._folder)
            elif (found := in_use(self._registry)) is not None:
                self._version, self._policy = found
            self._mark = mark
        self._looked_at = time.monotonic()


def _mark(path: Path) -> Mark | None:
    try:
        seen = path.stat()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): promote a policy, or name where one is"
        ) from error
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
