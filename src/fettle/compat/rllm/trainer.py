"""Training by the documented settings: a recipe is written, and the ordinary trainer carries it out as a process."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fettle.compat.rllm.config import RLLMConfig
from fettle.compat.rllm.material import Material, material
from fettle.compat.rllm.recipe import Base, documented_base, kind_weights, write_recipe
from fettle.compat.rllm.tracking import MLIntegration
from fettle.config import Pipeline
from fettle.errors import StateError
from fettle.tracking import RunFolder
from fettle.training import Session

FETTLE = (sys.executable, "-c", "from fettle.cli import main; main()")
INTERRUPTED = 130
"""What the trainer ends with when it was asked to stop."""


class RLLMTrainer:
    """Shows a model what solved problems, and then has it learn on them by reinforcement."""

    def __init__(
        self,
        config: RLLMConfig,
        *,
        base: Base | None = None,
        repository: Path | str | None = None,
        name: str | None = None,
        checkpoint_epochs: int | None = None,
        distributed: bool = False,
        overrides: Sequence[str] = (),
    ) -> None:
        """
        Args:
            config: the documented settings; who is told where is what ``MLIntegration`` of the same config set up.
            base: what they are laid over; None: nothing, and every one of them counts.
            repository: where problems are tested, for data that do not tell.
            name: first part of the run's name.
            checkpoint_epochs: passes over the data between checkpoints, in the place of ``save_steps``.
            distributed: whether ``config.distributed`` counts: it is then computed by ranks on Ray.
            overrides: settings of the recipe, as ``stages.0.steps=5``; they count last.
        """
        self._config = config
        self._base = base or documented_base(config)
        self._repository = Path(repository) if repository is not None else None
        self._name = name
        self._checkpoint_epochs = checkpoint_epochs
        self._distributed = distributed
        self._overrides = overrides
        self._folder = Path(config.model.output_dir)

    def recipe(self, train_data_path: Path | str, val_data_path: Path | str) -> tuple[Path, Pipeline, Material]:
        """The recipe and its data, written into ``output_dir``; ``fettle pipeline`` carries it out.

        Raises:
            ConfigError: a setting cannot be what it is.
            DataError: the data cannot be used.
        """
        reward = self._config.reward
        weighed = self._base.whole or bool(reward.model_fields_set)
        learned = material(
            Path(train_data_path),
            Path(val_data_path),
            self._folder / "data",
            system=self._base.system,
            weights=kind_weights(self._config) if weighed else None,
            repository=self._repository,
            numbered=self._base.numbered,
        )
        path, pipeline = write_recipe(
            self._folder,
            self._base,
            self._config,
            learned,
            half_precision=torch.cuda.is_available(),
            trackers=MLIntegration(self._config).trackers(),
            name=self._name,
            checkpoint_epochs=self._checkpoint_epochs,
            distributed=self._distributed,
            overrides=self._overrides,
        )
        return path, pipeline, learned

    async def train(self, train_data_path: Path | str, val_data_path: Path | str) -> Path:
        """Train: the folder of the last stage's newest checkpoint.

        When it is cancelled the trainer is asked to save and stop, and is waited for.

        Raises:
            ConfigError: a setting cannot be what it is.
            DataError: the data cannot be used.
            StateError: the trainer did not come to its end; what it said stands on standard error.
        """
        path, pipeline, _ = self.recipe(train_data_path, val_data_path)
        return await self.carry_out(path, pipeline)

    async def carry_out(self, path: Path, pipeline: Pipeline) -> Path:
        """Train as the recipe at ``path`` says, as ``train`` does."""
        runs = self._folder / "runs"
        before = frozenset(_folders(runs))
        await _ended("pipeline", str(path), "--runs", str(runs))
        [made] = [folder for folder in _folders(runs) if folder not in before]
        return Path(Session.ended(RunFolder(made / pipeline.stages[-1].name)).checkpoint)

    async def tune(self, path: Path, study: Path) -> Path:
        """Try other settings of a recipe, as a study says: the folder of the study.

        Raises:
            StateError: it did not come to its end; what it said stands on standard error.
        """
        studies = self._folder / "studies"
        before = frozenset(_folders(studies))
        await _ended("tune", str(path), "--study", str(study), "--studies", str(studies))
        [made] = [folder for folder in _folders(studies) if folder not in before]
        return made


async def _ended(*words: str) -> None:
    """Wait for a command to come to its end."""
    # In a session of its own, so that Ctrl-C reaches it once, from here.
    process = await asyncio.create_subprocess_exec(*FETTLE, *words, start_new_session=True)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if code:
        why = "was asked to stop" if code == INTERRUPTED else f"ended with {code}"
        raise StateError(f"{words[0]} of {words[1]} {why}: what it said stands above")


def _folders(runs: Path) -> list[Path]:
    return [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
