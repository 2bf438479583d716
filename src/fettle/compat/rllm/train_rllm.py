"""The documented command: ``python -m fettle.compat.rllm.train_rllm --benchmark-id ... --output-dir ...``."""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fettle.compat.rllm.benchmarks import FOLDER_OF_ALL
from fettle.compat.rllm.config import EXPERIMENT
from fettle.compat.rllm.flags import OUTPUT, Flags, carried_out, settings
from fettle.compat.rllm.recipe import documented_base
from fettle.errors import ConfigError, FettleError

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "training.num_train_epochs": 3,
        "training.per_device_train_batch_size": 4,
        "training.learning_rate": 5e-5,
    }
)
"""What the documented flags are where neither they nor a file say it."""


def parser() -> argparse.ArgumentParser:
    """Every documented flag, and those of our own."""
    made = argparse.ArgumentParser(prog="train_rllm", description="Train a model on the issues of a history.")
    made.add_argument("--config", type=Path, help="settings in JSON, as RLLMConfig.save_to_json writes them")
    made.add_argument("--benchmark-id", help="a benchmark, whose attempts are learned from")
    made.add_argument("--train-path", type=Path, help="problems, or lines of the data set, to train on")
    made.add_argument("--val-path", type=Path, help="the same, held out")
    made.add_argument("--output-dir", type=Path, default=OUTPUT, help="data, recipe and run (default: %(default)s)")
    made.add_argument("--distributed", action="store_true", help="computed by ranks on Ray, as distributed says")
    made.add_argument("--no-mlflow", action="store_true", help="tell MLflow nothing")
    made.add_argument("--epochs", type=int, help="passes over the data, of each stage (default: 3)")
    made.add_argument("--batch-size", type=int, help="sequences in the model at once (default: 4)")
    made.add_argument("--learning-rate", type=float, help="of each stage (default: 5e-5)")
    made.add_argument("--checkpoint-interval", type=int, help="passes over the data between checkpoints")
    made.add_argument("--early-stopping", action="store_true", help="end when evaluations get no better")
    made.add_argument("--early-stop-patience", type=int, help="after how many of them (default: 3)")
    made.add_argument("--tune-hyperparameters", action="store_true", help="try other settings: a study")
    made.add_argument("--n-trials", type=int, help="of the study (default: 10)")
    made.add_argument("--experiment-name", help=f"in MLflow (default: {EXPERIMENT})")
    made.add_argument("--run-name", help="first part of the run folder's name")
    made.add_argument("--verbose", action="store_true", help="print the recipe before it is carried out")
    made.add_argument("--sample-config", action="store_true", help="write every setting to config.json, and end")
    made.add_argument("--kubernetes", action="store_true", help="refused: this trains here")
    made.add_argument("--repository", type=Path, help="where problems are tested that do not tell")
    made.add_argument("--benchmarks", type=Path, default=FOLDER_OF_ALL, help="where they are (default: %(default)s)")
    made.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings of the recipe, laid over it last")
    return made


def flags_of(arguments: Sequence[str] | None) -> Flags:
    """What arguments say; None: those that the program was started with."""
    given = vars(parser().parse_args(arguments))
    mlflow = False if given.pop("no_mlflow") else None
    return Flags(**given, mlflow=mlflow)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the arguments say: 0, 1 where it failed, 2 where it was asked for wrongly, 130 where it was ended."""
    flags = flags_of(arguments)
    try:
        config = settings(flags, DEFAULTS)
        trained = asyncio.run(carried_out(flags, config, documented_base(config), _say))
    except FettleError as error:
        sys.stderr.write(f"train_rllm: {error.message}\n")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    if trained is not None:
        _say(f"{'Study in' if flags.tune_hyperparameters else 'Model saved to'} {trained}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
