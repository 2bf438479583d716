"""The documented search for better settings, as a study of the recipe's last stage."""

import math
from pathlib import Path
from typing import Any

from fettle.compat.rllm.material import Material
from fettle.config import Pipeline, RLRun
from fettle.config.document import written
from fettle.tracking import write_atomically

NAME = "study.yaml"
RATES = (1e-6, 1e-4)
BATCHES = (2, 4, 8, 16)
MOST_EPOCHS = 5


def write_study(folder: Path, pipeline: Pipeline, material: Material, *, trials: int) -> Path:
    """A study in ``folder``: learning rate, batch and passes of the last stage, by what is held out."""
    last = len(pipeline.stages) - 1
    stage = pipeline.stages[last]
    reinforced = isinstance(stage, RLRun)
    if isinstance(stage, RLRun) and material.problems is not None:
        size, each, batch = material.problems.count, stage.groups_per_step, "groups_per_step"
        sizes = tuple(stage.minibatches * math.ceil(wanted / stage.minibatches) for wanted in BATCHES)
    else:
        size, each, batch = material.count, getattr(stage, "batch_size", 1), "batch_size"
        sizes = BATCHES
    passes = dict.fromkeys(epochs * math.ceil(size / each) for epochs in range(1, MOST_EPOCHS + 1))
    space: dict[str, dict[str, Any]] = {
        "optimizer.learning_rate": {"type": "float", "low": RATES[0], "high": RATES[1], "log": True},
        batch: {"type": "categorical", "choices": list(dict.fromkeys(sizes))},
        "steps": {"type": "categorical", "choices": list(passes)},
    }
    score = {"metric": "heldout/reward", "direction": "maximize"}
    study = {
        "name": pipeline.name,
        "space": {f"stages.{last}.{name}": tried for name, tried in space.items()},
        **(score if reinforced else {"metric": "heldout/loss", "direction": "minimize"}),
        "trials": trials,
    }
    path = folder / NAME
    write_atomically(path, written(study))
    return path
