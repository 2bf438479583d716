"""What a run leaves on disk, by the documented names, keys and shapes."""

import hashlib
import json
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fettle.config import dump
from fettle.config.router import RouterConfig
from fettle.errors import CheckpointError, StorageError
from fettle.router.files import (
    CHECKPOINTS,
    EVALUATION,
    FIGURE,
    HISTORY,
    METADATA,
    POLICY,
    SCHEMA,
    SNAPSHOT,
    Arrays,
    arrays_as_bytes,
    read_arrays,
)
from fettle.router.modes import MODES
from fettle.router.nouns import DOCUMENTED_TERMS
from fettle.router.simulators import simulator_of
from fettle.router.training import Row, Run, Trained
from fettle.tracking import write_atomically
from fettle.tracking.claim import claim

PACKAGES = ("fettle", "numpy", "torch")
NEEDED = {"rows", "episodes/modes", "proven/update", "succeeded"}
"""Of a checkpoint that a run can go on from, beside what every release wrote."""


class RunFolder:
    """Satisfies ``Keeper``: the artifacts of one run, as they come to be."""

    def __init__(self, config: RouterConfig, config_path: Path | None) -> None:
        self.path = Path(config.rllm.experiment.output_dir)
        self._config = config
        self._config_path = "" if config_path is None else str(config_path.resolve())
        self._rows: list[Row] = []
        self._kept_at = 0
        self._goes_on = False
        self._held: BinaryIO | None = None

    def resumed(self) -> Arrays | None:
        """The newest checkpoint, where the run is to go on and there is one.

        Raises:
            CheckpointError: it cannot be read, was made with other settings, or is further than this run is to come.
        """
        numbered = self._numbered()
        if not self._config.rllm.experiment.resume or not numbered:
            return None
        newest = numbered[-1]
        saved = dict(read_arrays(newest))
        if "settings" not in saved or saved.pop("settings").tobytes().decode() != settings_hash(self._config):
            raise CheckpointError(
                f"{newest} was made with other settings: set experiment.resume to false, or take those in {SNAPSHOT}"
            )
        if not saved.keys() >= NEEDED:
            raise CheckpointError(f"{newest} was made by an earlier release: set experiment.resume to false")
        self._rows = json.loads(saved.pop("rows").tobytes())
        if len(self._rows) > self._config.rllm.trainer.updates:
            raise CheckpointError(
                f"{newest} is further than rllm.trainer.updates, which is {self._config.rllm.trainer.updates}: ask for "
                f"{len(self._rows)} or more, or set experiment.resume to false"
            )
        self._kept_at = len(self._rows) * self._config.rllm.ppo.rollout_length
        self._goes_on = True
        return saved

    def begin(self) -> None:
        """What an earlier run left goes, but for the checkpoints of the one that goes on.

        Raises:
            StorageError: the folder cannot be written to, or another run is writing there.
        """
        stale = [self.path / name for name in (EVALUATION, FIGURE)]
        if not self._goes_on:
            stale += [*self._numbered(), *(self.path / name for name in (HISTORY, POLICY, METADATA))]
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            self._held = claim(self.path)
            for old in stale:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written to ({error.strerror}): change output_dir") from error
        write_atomically(self.path / SNAPSHOT, dump(self._config))

    def row(self, row: Row, run: Run) -> None:
        """The history, the policy as it now is, and a checkpoint where one is due."""
        self._rows.append(row)
        self._write(run.policy(), None)
        checkpointing = self._config.rllm.experiment.checkpointing
        steps = run.update * self._config.rllm.ppo.rollout_length
        if checkpointing.enabled and steps - self._kept_at >= checkpointing.frequency_steps:
            self._kept_at = steps
            rows = np.frombuffer(json.dumps(self._rows).encode(), np.uint8)
            settings = np.frombuffer(settings_hash(self._config).encode(), np.uint8)
            saved = {**run.saved(), "rows": rows, "settings": settings}
            write_atomically(self._checkpoints / f"update-{run.update:06}.npz", arrays_as_bytes(saved))
            for old in self._numbered()[: -checkpointing.keep_last_n]:
                old.unlink()

    def end(self, trained: Trained, run: Run) -> None:
        """The policy that the run came to, and why it ended if that was before its time; what was undone has no row."""
        self._rows = self._rows[: trained.updates]
        self._write(trained.policy, trained.stopped)
        if self._held is not None:
            self._held.close()

    def _write(self, policy: Arrays, stopped: str | None) -> None:
        """Everything that is there after each update; the history has a row a line."""
        contents = arrays_as_bytes(policy)
        lines = ",\n".join(json.dumps(row) for row in self._rows)
        write_atomically(self.path / HISTORY, f"[\n{lines}\n]\n")
        write_atomically(self.path / POLICY, contents)
        metadata = {**self._metadata(), "policy_sha256": hashlib.sha256(contents).hexdigest(), "stopped": stopped}
        write_atomically(self.path / METADATA, json.dumps(metadata, indent=2) + "\n")

    def _metadata(self) -> dict[str, Any]:
        """The documented keys first, then ours."""
        newest = self._rows[-1] if self._rows else {}
        return {
            "updates": len(self._rows),
            **described(self._config, config_path=self._config_path, updates=len(self._rows)),
            "reward_terms": {term: newest[name] for term, name in DOCUMENTED_TERMS.items() if newest},
            "mode_frequencies": {mode: newest[f"share_{mode}"] for mode in MODES if newest},
        }

    @property
    def _checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def _numbered(self) -> list[Path]:
        """Checkpoints, oldest first."""
        if not self._checkpoints.is_dir():
            return []
        return sorted(path for path in self._checkpoints.iterdir() if re.fullmatch(r"update-\d{6,}\.npz", path.name))


def described(config: RouterConfig, *, config_path: str, updates: int) -> dict[str, Any]:
    """What there is to say of a policy that was trained so far: the documented keys first."""
    rllm = config.rllm
    return {
        "seed": rllm.trainer.seed,
        "episode_length": rllm.trainer.episode_length,
        "ppo_params": rllm.ppo.model_dump(),
        "reward_weights": rllm.reward_weights.model_dump(),
        "config_path": config_path,
        "schema_version": SCHEMA,
        "simulated": True,
        "simulator": rllm.simulator.model_dump(),
        "policy": rllm.policy.model_dump(),
        "features": list(simulator_of(rllm.simulator).features),
        "name": rllm.experiment.name,
        "description": rllm.experiment.description,
        "tags": list(rllm.experiment.tags),
        "decisions": updates * rllm.ppo.rollout_length,
        "config_sha256": hashlib.sha256(dump(config).encode()).hexdigest(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def settings_hash(config: RouterConfig) -> str:
    """Of the settings that a resumed run must share with the one before."""
    tree = config.rllm.model_dump(
        include={"trainer", "ppo", "reward_weights", "simulator", "policy", "hicra", "breakers"},
        exclude={"trainer": {"updates", "enabled", "backend"}},
    )
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
