"""Which GPUs a process computes on: who says so, and whom of those is believed."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fettle.config.policy import EngineConfig, LaunchedEngine, TorchEngine
from fettle.errors import ConfigError

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
PLACES = ("LOCAL_RANK", "SLURM_LOCALID")
"""What torchrun and SLURM call the place of a process on its machine."""


PRECEDENCE = (
    "--device and --gpu-ids, the recipe or the object of settings, CUDA_VISIBLE_DEVICES, what is found; of these "
    "LOCAL_RANK takes one"
)


@dataclass(frozen=True)
class Choice:
    """GPUs by their names, None being all that are found; and who chose them."""

    gpus: tuple[str, ...] | None
    by: str


def chosen(engine: TorchEngine, environment: Mapping[str, str]) -> Choice:
    """What the settings say (the command's flags are laid over the recipe before), then the environment, then nobody.

    Processes that were launched together take one each, by their place on the machine.

    Raises:
        ConfigError: there are fewer GPUs to choose from than processes on the machine.
    """
    if engine.device in ("cpu", "mps"):
        return Choice((), "engine.device")
    if engine.gpu_ids:
        found = Choice(tuple(map(str, engine.gpu_ids)), "engine.gpu_ids")
    elif VISIBLE in environment:
        found = Choice(tuple(each.strip() for each in environment[VISIBLE].split(",") if each.strip()), VISIBLE)
    else:
        found = Choice(None, "what is found here")
    place = next((name for name in PLACES if name in environment), None)
    if not isinstance(engine, LaunchedEngine) or place is None or (found.gpus is not None and len(found.gpus) == 1):
        return found
    return Choice((_at(int(environment[place]), found, place),), f"{found.by}, the one at {place} {environment[place]}")


def _at(place: int, found: Choice, named: str) -> str:
    if found.gpus is None:
        return str(place)
    if place >= len(found.gpus) > 0:
        raise ConfigError(
            f"{found.by} has {len(found.gpus)} GPUs, and {named} is {place}: start no more processes on a machine than "
            "it has GPUs"
        )
    return found.gpus[place] if found.gpus else ""


def told(engine: EngineConfig, environment: Mapping[str, str]) -> list[str]:
    """Where a run would compute, and by whose word; nothing of a service's."""
    if not isinstance(engine, TorchEngine):
        return []
    found = chosen(engine, environment)
    if found.gpus == ():
        return [f"computes on: {engine.device if found.by == 'engine.device' else 'no GPU'}, by {found.by}"]
    which = "GPUs, if there are any" if found.gpus is None else f"GPU {', '.join(found.gpus)}"
    return [f"computes on: {which}, by {found.by}", f"  (in this order: {PRECEDENCE})"]


def narrow(engines: Sequence[TorchEngine]) -> None:
    """Have this process, and what it starts, see no GPUs but the chosen; before CUDA is begun in it.

    Raises:
        ConfigError: the engines are to be on different GPUs.
    """
    choices = {chosen(engine, os.environ).gpus for engine in engines if engine.device not in ("cpu", "mps")}
    if len(choices) > 1:
        raise ConfigError("stages name different engine.gpu_ids, and a process has one choice of GPUs: run them apart")
    for gpus in choices:
        if gpus is not None:
            os.environ |= {VISIBLE: ",".join(gpus), ORDER: "PCI_BUS_ID"}


def index_of(gpu: int) -> int:
    """What a GPU is called in this process, which numbers those that it sees."""
    seen = os.environ.get(VISIBLE)
    names = [] if seen is None else [each.strip() for each in seen.split(",")]
    return names.index(str(gpu)) if str(gpu) in names else gpu
