"""Verbs that look and change nothing: ``plan``, ``config``, ``info``, ``runs``."""

import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fettle.cli.invoked import FETTLE
from fettle.cli.train import Device, GPUs, Overrides, Runs, computed, listed

Recipe = Annotated[Path, typer.Argument(help="A YAML recipe.")]

CORE = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic")
EXTRAS = {"gym": "reasoning_gym"}

config = typer.Typer(no_args_is_help=True, help="Show a recipe as it resolves, or the schema of all recipes.")


def plan(recipe: Recipe, overrides: Overrides = None, device: Device = None, gpu_ids: GPUs = None) -> None:
    """Say what a recipe would do: who reads each setting, on which device, how much memory, how many tokens."""
    from fettle.config.devices import told
    from fettle.config.load import load

    loaded = load(recipe, [*(overrides or ()), *computed(recipe, device=device, gpu_ids=listed(gpu_ids))])

    from fettle.cli import build  # only now: torch takes seconds, and a slip in a recipe should be told at once
    from fettle.cli.engines import capabilities, check_players
    from fettle.cli.models import stages_of
    from fettle.training.plan import plans

    for stage in stages_of(loaded):
        check_players(stage)
    for (name, planned), stage in zip(plans(build.settled(loaded), capabilities), stages_of(loaded), strict=True):
        print(name)
        rows = [("setting", "read by", "value")]
        for setting in planned.settings:
            value = setting.value if isinstance(setting.value, str) else json.dumps(setting.value)
            rows.append((setting.key, setting.consumer.removeprefix("fettle."), value))
        print_columns(rows)
        print()
        for line in told(stage.engine, os.environ):
            print(f"  {line}")
        for what, how_many in planned.batch:
            print(f"  {what}: {how_many}")
        for what, size in planned.memory:
            print(f"  memory for {what}: {size / 2**20:,.0f} MiB")
        if planned.memory:
            print(f"  memory in all: about {planned.memory_bytes / 2**30:.2f} GiB")
        for note in planned.notes:
            print(f"  note: {note}")
        print()


def print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """No table that folds or crops: what stands there is there to be copied."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


@config.command("show")
def show(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print a recipe with every setting resolved."""
    from fettle.config.load import dump, load

    print(dump(load(recipe, overrides or ())), end="")


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from fettle.config.load import schema as recipes_schema

    print(json.dumps(recipes_schema(), indent=2))


def runs(
    runs: Runs = Path("runs"), as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False
) -> None:
    """List the runs in a folder."""
    from dataclasses import asdict

    from fettle.tracking import list_runs

    found = list_runs(runs)
    if as_json:
        print(json.dumps([asdict(run) for run in found]))
        return
    if not found:
        print(f"no runs in {runs}: start one with {FETTLE} demo, or name another folder")
        return
    rows = [("run", "kind", "status", "steps", "reward", "started")]
    for run in found:
        reward = "" if run.reward is None else f"{run.reward:.3f}"
        rows.append((run.name, run.kind, run.status, str(run.steps), reward, run.started[:16].replace("T", " ")))
    print_columns(rows)


def info(as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Report versions, hardware, and which extras are here."""
    import psutil
    import torch

    import fettle

    facts = {
        "fettle": fettle.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in CORE},
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "sandbox": _confinement(),
    }
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    extras = {name: _version(module) for name, module in EXTRAS.items()}
    if as_json:
        print(json.dumps({**facts, "gpus": gpus, "extras": extras}))
        return
    found = [f"{name} {version or f'absent (pip install fettle[{name}])'}" for name, version in extras.items()]
    shown = {**facts, "gpus": ", ".join(gpus) or "none that torch can see", "extras": ", ".join(found)}
    for name, value in shown.items():
        print(f"{name:14} {value}")


def _confinement() -> str:
    """What confines code here that nobody vouches for, or why none is run."""
    from fettle.errors import FettleError
    from fettle.sandbox import isolation

    try:
        return str(isolation())
    except FettleError as error:
        return f"none to be had: {error.message}"


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.metadata.version(package)
