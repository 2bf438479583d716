"""The documented flags: what each of them asks of the settings, and which are refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fettle.compat.rllm.benchmarks import FOLDER_OF_ALL, BenchmarkIntegration
from fettle.compat.rllm.config import RLLMConfig
from fettle.compat.rllm.recipe import Base
from fettle.compat.rllm.study import write_study
from fettle.compat.rllm.tracking import MLIntegration
from fettle.compat.rllm.trainer import RLLMTrainer
from fettle.config.layers import laid_over
from fettle.errors import ConfigError

OUTPUT = Path("data/rllm")
TRIALS = 10

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "epochs": "training.num_train_epochs",
        "batch_size": "training.per_device_train_batch_size",
        "learning_rate": "training.learning_rate",
        "early_stop_patience": "training.early_stop_patience",
    }
)
"""Flags that are settings."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given; None and False are what was not."""

    config: Path | None = None
    benchmark_id: str | None = None
    train_path: Path | None = None
    val_path: Path | None = None
    output_dir: Path = OUTPUT
    distributed: bool = False
    mlflow: bool | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    checkpoint_interval: int | None = None
    early_stopping: bool = False
    early_stop_patience: int | None = None
    tune_hyperparameters: bool = False
    n_trials: int | None = None
    experiment_name: str | None = None
    run_name: str | None = None
    verbose: bool = False
    sample_config: bool = False
    kubernetes: bool = False
    repository: Path | None = None
    """Beside the documented ones: where problems are tested that do not tell."""
    benchmarks: Path = FOLDER_OF_ALL
    """Beside the documented ones: where benchmarks are."""
    overrides: Sequence[str] = ()
    """Beside the documented ones: settings of the recipe."""


def settings(flags: Flags, defaults: Mapping[str, Any]) -> RLLMConfig:
    """The settings of the file that is named, with the flags over them and ``defaults``, by dotted names, below both.

    Raises:
        ConfigError: a setting is not known or cannot be what it is, or a flag needs another.
    """
    _check(flags)
    given = RLLMConfig.from_json(flags.config).model_dump(mode="json", exclude_unset=True) if flags.config else {}
    named = {SETTINGS[flag]: value for flag in SETTINGS if (value := getattr(flags, flag)) is not None}
    named |= {"model.output_dir": str(flags.output_dir)}
    named |= {"training.early_stopping": True} if flags.early_stopping else {}
    named |= {"training.report_to": ["mlflow"] if flags.mlflow else []} if flags.mlflow is not None else {}
    return RLLMConfig.model_validate(laid_over(laid_over(_tree(defaults), given), _tree(named)))


def _check(flags: Flags) -> None:
    """Refuse what cannot be done, each with the reason."""
    if flags.kubernetes:
        raise ConfigError("--kubernetes asks to be run elsewhere, and this trains here: leave it out")
    if flags.n_trials is not None and not flags.tune_hyperparameters:
        raise ConfigError("--n-trials is of --tune-hyperparameters, which is not asked for: add it")
    if flags.early_stop_patience is not None and not flags.early_stopping:
        raise ConfigError("--early-stop-patience is of --early-stopping, which is not asked for: add it")


def _check_told(config: RLLMConfig, base: Base) -> None:
    """Refuse the name of an experiment that nobody is told under."""
    named = base.whole or "report_to" in config.training.model_fields_set
    if not named or "mlflow" not in config.training.report_to:
        raise ConfigError("--experiment-name is MLflow's, which is told nothing: add --mlflow, or leave it out")


def _tree(dotted: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree


async def files(flags: Flags, config: RLLMConfig) -> tuple[Path, Path]:
    """What is trained on, and what is held out.

    Raises:
        ConfigError: neither a benchmark nor both files are named.
        NotFoundError: there is no such benchmark.
    """
    if flags.benchmark_id is not None:
        if flags.train_path is not None or flags.val_path is not None:
            raise ConfigError("--benchmark-id names data, and so do --train-path and --val-path: give the one or both")
        benchmarks = BenchmarkIntegration(config, folder=flags.benchmarks)
        _, training, heldout = await benchmarks.convert_existing_benchmark(flags.benchmark_id)
        return training, heldout
    if flags.train_path is None or flags.val_path is None:
        missing = "--train-path" if flags.train_path is None else "--val-path"
        raise ConfigError(f"{missing} is missing: give both files, or --benchmark-id")
    return flags.train_path, flags.val_path


async def carried_out(flags: Flags, config: RLLMConfig, base: Base, told: Callable[[str], object]) -> Path | None:
    """Train, or tune, as flags ask: the folder of what came of it; None where a sample of settings was asked for.

    ``told`` hears what is learned from.

    Raises:
        FettleError: it cannot be done, or did not come to its end.
    """
    if flags.sample_config:
        path = flags.output_dir / "config.json"
        config.save_to_json(path)
        told(f"every setting: {path}")
        return None
    if flags.experiment_name is not None:
        _check_told(config, base)
        await MLIntegration(config).setup_mlflow(flags.experiment_name)
    trainer = RLLMTrainer(
        config,
        base=base,
        repository=flags.repository,
        name=flags.run_name,
        checkpoint_epochs=flags.checkpoint_interval,
        distributed=flags.distributed,
        overrides=flags.overrides,
    )
    path, pipeline, learned = trainer.recipe(*await files(flags, config))
    for why, count in learned.dropped.items():
        told(f"{count:6} left out: {why}")
    if learned.problems is None:
        told("no tests are known of what is asked: it is shown, weighed by its rewards, and nothing new is tried")
    told(f"{learned.count:6} to be shown, {learned.heldout} held out; the recipe: {path}")
    if flags.verbose:
        told(path.read_text(encoding="utf-8"))
    if flags.tune_hyperparameters:
        study = write_study(path.parent, pipeline, learned, trials=flags.n_trials or TRIALS)
        told(f"the study: {study}")
        return await trainer.tune(path, study)
    return await trainer.carry_out(path, pipeline)
