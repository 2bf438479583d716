"""What must be done again to a policy when its ranks are lost: since it was last written down, or made."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

WORTH = 10
"""How many times longer than it takes to write a policy down it has computed before that is done."""

AT_ONCE = frozenset({"load_policy", "restore", "revive"})
"""They speak of files which may be gone when they are to be repeated."""

STEPS = frozenset({"optim_step", "undo"})
"""After which a policy is least to write down: no gradients wait."""


class Done(NamedTuple):
    """An operation that changed a policy."""

    operation: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(slots=True)
class _Past:
    done: list[Done] = field(default_factory=list)
    folder: Path | None = None
    seconds: float = 0.0
    took: float = 0.0

    @property
    def saves(self) -> bool:
        """Whether a checkpoint is being written, which could not be begun again from a later state."""
        return any(each.operation == "save" and not each.positional[0].found.done() for each in self.done)


class Recall:
    """Of each policy, the operations that make it again, the first of which makes it of files."""

    def __init__(self, folder: Path, *, seconds: float) -> None:
        """Policies are to be written into ``folder`` once they have computed for so many seconds."""
        self._folder = folder
        self._seconds = seconds
        self._pasts: dict[str, _Past] = {}
        self._written = itertools.count()

    def note(self, policy: str, done: Done, seconds: float) -> Path | None:
        """An operation was done, in so many seconds; returns where the policy is to be written now, if it is."""
        past = self._pasts.setdefault(policy, _Past())
        past.done.append(done)
        past.seconds += seconds
        due = done.operation in STEPS and not past.saves and past.seconds > max(self._seconds, WORTH * past.took)
        return self._folder / str(next(self._written)) if due or done.operation in AT_ONCE else None

    def written(self, policy: str, folder: Path, seconds: float) -> None:
        """It was written down there, in so many seconds, as it was after what was noted last."""
        past = self._pasts[policy]
        _remove(past.folder)
        past.folder, past.took, past.seconds = folder, seconds, 0.0
        past.done = [Done("revive", (policy, folder), {})]

    def unwritten(self) -> Iterator[tuple[str, Path]]:
        """Policies to which something was done since they were written down, and where they are to be written now."""
        for policy, past in list(self._pasts.items()):
            if (past.folder is None or len(past.done) > 1) and not past.saves:
                yield policy, self._folder / str(next(self._written))

    def forget(self, policy: str) -> None:
        """It was closed."""
        past = self._pasts.pop(policy, None)
        if past is not None:
            _remove(past.folder)

    def operations(self) -> Iterator[Done]:
        """What makes all policies again, one after the other."""
        for past in self._pasts.values():
            yield from past.done

    def close(self) -> None:
        """Nothing will have to be made again."""
        _remove(self._folder)


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
