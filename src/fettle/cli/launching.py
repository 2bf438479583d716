"""A run of several processes that torchrun or SLURM has started: the first carries it out, and the others follow."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fettle.cli.exits import FAILED
from fettle.config import LaunchedEngine, Pipeline, RunConfig
from fettle.config.devices import narrow
from fettle.errors import ConfigError

if TYPE_CHECKING:
    from fettle.cluster.channels import Channels, Meeting
    from fettle.cluster.launched import Launched
    from fettle.cluster.world import World
    from fettle.config import PolicySpec
    from fettle.engine import Capabilities

STARTED = "torchrun --nproc-per-node 2 -m fettle train RECIPE --engine launched, or with srun"


@dataclass(frozen=True)
class Led:
    """What the first process has of the others."""

    world: "World"
    meeting: "Meeting"
    channels: "Channels"

    def before(self) -> Path | None:
        """The folder of the run that processes before these were at, where all were started anew."""
        found = self.meeting.remembered() if self.world.begun else None
        return None if found is None else Path(found)

    def at(self, run: Path) -> None:
        """All are at the run in that folder."""
        self.meeting.remember(str(run.resolve()))


LED: ContextVar[Led | None] = ContextVar("LED", default=None)
"""In the first process, while a run is carried out."""


@contextmanager
def launched(config: RunConfig) -> Iterator[Led | None]:
    """In the first of several processes, the others until the block ends; elsewhere the block is not begun.

    Yields None to a process by itself.

    Raises:
        ConfigError: processes were started together and the recipe is of one, or the reverse.
        EngineError: they do not find each other.
    """
    from fettle.cluster.world import world

    here = world(os.environ)
    _check(config, here)
    if here is None or not _of_several(config):
        yield None
        return
    from fettle.cluster.channels import Channels, Meeting

    meeting = Meeting(here, seconds=_seconds(config))
    if here.rank:
        raise typer.Exit(_followed(config, meeting, here))
    led = Led(here, meeting, Channels(meeting.led()))
    before, ended = LED.set(led), FAILED
    try:
        yield led
        ended = 0
    except typer.Exit as error:
        ended = error.exit_code
        raise
    finally:
        LED.reset(before)
        led.channels.close(("end", (ended,)))


def backend(settings: LaunchedEngine, checkpoints: Path) -> "Launched":
    """That of all processes, or of this one where it was started by itself, as to try a model out."""
    from fettle.cluster.channels import Channels
    from fettle.cluster.launched import Launched

    led = LED.get()
    if led is None:
        return Launched(settings, Channels([]), lambda: "127.0.0.1", checkpoints=checkpoints)
    return Launched(settings, led.channels, led.world.address, checkpoints=checkpoints)


def capabilities(settings: LaunchedEngine, policy: "PolicySpec | None") -> "Capabilities":
    """What each process can do, if their machines are like this one."""
    from fettle.cluster.needs import of_rank
    from fettle.engine.local import capabilities as local_capabilities

    own = local_capabilities(of_rank(settings), policy)
    ranks = f"as many as torchrun or SLURM starts, each with {own.threads} threads on {own.device}"
    if settings.sharded:
        ranks += "; layers are parted among them"
    return replace(own, engine="launched", paths={"ranks": ranks, **own.paths} if own.paths else {})


def _followed(config: RunConfig, meeting: "Meeting", here: "World") -> int:
    """The exit code of the first process, when it has ended."""
    from fettle.cluster.launched import follow

    channel = meeting.following()
    narrow(_engines(config))
    for each in (signal.SIGINT, signal.SIGTERM):  # the first saves and ends, and says so
        signal.signal(each, signal.SIG_IGN)
    return follow(channel, here.address)


def _check(config: RunConfig, here: "World | None") -> None:
    if _of_several(config):
        if here is None:
            raise ConfigError(f"engine.type is launched, and nobody has launched this process: start it by {STARTED}")
    elif here is not None and here.size > 1:
        raise ConfigError(
            f"{here.by} has started {here.size} processes, and by this recipe each would train by itself: add --engine "
            "launched"
        )


def _of_several(config: RunConfig) -> bool:
    return bool(_engines(config))


def _seconds(config: RunConfig) -> float:
    return max(engine.start_seconds for engine in _engines(config))


def _engines(config: RunConfig) -> list[LaunchedEngine]:
    stages = config.stages if isinstance(config, Pipeline) else (config,)
    return [stage.engine for stage in stages if isinstance(stage.engine, LaunchedEngine)]
