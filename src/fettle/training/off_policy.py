"""Groups of earlier steps, learned from again; they are kept beside the run's checkpoints."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from fettle.config import Replay as ReplaySettings
from fettle.errors import CheckpointError, DataError
from fettle.rollouts import Group, Replay
from fettle.tracking import write_atomically

PART = "replay"
"""Under this name the memory is saved beside the policy."""

GROUPS = "groups.jsonl"
"""The file of a saved memory, a group a line."""


class Memory:
    """A replay buffer that is saved with the checkpoints."""

    def __init__(self, settings: ReplaySettings, *, seed: int, checkpoints: Path) -> None:
        self._settings = settings
        self._buffer = Replay(capacity=settings.capacity, max_age=settings.max_age, seed=seed)
        self._checkpoints = checkpoints

    def recalled(
        self, groups: Sequence[Group], *, step: int, policy_version: int
    ) -> tuple[list[Group], dict[str, float]]:
        """Groups of earlier steps to learn from beside these, which are kept for later ones; and how old they are."""
        found = self._buffer.sample(self._settings.groups, step=step, policy_version=policy_version)
        self._buffer.add(groups)
        ages = [policy_version - t.policy_version for group in found for t in group.trajectories]
        return found, {"replay/groups": float(len(found)), "replay/age_mean": statistics.fmean(ages) if ages else 0.0}

    async def save(self, name: str) -> None:
        """Write all that is kept into a folder of that name among the checkpoints."""
        folder = self._checkpoints / name
        folder.mkdir(exist_ok=True)
        write_atomically(folder / GROUPS, "".join(json.dumps(row) + "\n" for row in self._buffer.rows()))

    def restore(self, folder: Path) -> None:
        """Keep what was saved in ``folder``, and nothing else.

        Raises:
            CheckpointError: it is not there, or cannot be read.
        """
        path = folder / GROUPS
        try:
            self._buffer.restore(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
        except (OSError, ValueError, DataError) as error:
            raise CheckpointError(
                f"the replayed groups in {path} cannot be read ({error}): bring the file back, or start the run anew"
            ) from error
