"""Workers on a study as tasks of Ray: of a cluster that is there, or of one that is begun here and ends with it."""

import logging
import math
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

import fettle
from fettle.cli.crews import Crew, log_of
from fettle.cli.studied import Tuning
from fettle.cli.tune import say
from fettle.cluster.session import check_reached, heard
from fettle.config.study import RayTasks
from fettle.errors import ConfigError, FettleError, UnreachableError
from fettle.tuning import StudyFolder

DEATHS = 3
"""Times that a worker which died is begun again, here or on another machine."""
WAIT_S = 60.0
"""For how long none may have begun before it is told why."""
STORE_BYTES = 2**27
"""What tasks hand to each other, which here is nothing but words."""
DONE, STOPPED = "", "it was stopped"


@dataclass(frozen=True, slots=True)
class RayTeam:
    """Satisfies ``Team``, while it is connected."""

    folder: StudyFolder
    tasks: RayTasks

    @contextmanager
    def crew(self, phase: str) -> Iterator[Crew]:
        """The same."""
        begun = ray.remote(_worked).options(
            num_cpus=self.tasks.cpus, num_gpus=self.tasks.gpus, max_retries=DEATHS, name=self.folder.path.name
        )
        place, own = str(self.folder.path.resolve()), str(Path.cwd())
        refs = [begun.remote(place, phase, at, own, fettle.__version__) for at in range(self.tasks.count)]
        found = _Running(self.folder, refs)
        try:
            yield found
        finally:
            found.end()


@contextmanager
def ray_team(folder: StudyFolder, tasks: RayTasks) -> Iterator[RayTeam]:
    """Workers as tasks of Ray, to which this process is connected until the block ends.

    Raises:
        ConfigError: there is no such cluster, or none of its machines has what a worker needs.
    """
    with tempfile.TemporaryDirectory(prefix="fettle-", ignore_cleanup_errors=True) as scratch:
        _connect(tasks, scratch)
        try:
            _check_room(tasks)
            yield RayTeam(folder, tasks)
        finally:
            ray.shutdown()


def _connect(tasks: RayTasks, scratch: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if tasks.address is None:
        with heard():
            ray.init(
                address="local",
                num_cpus=math.ceil(tasks.count * tasks.cpus),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=scratch,
                **quiet,
            )
        return
    try:
        check_reached(tasks.address, named="workers.address")
        with heard():
            ray.init(address=tasks.address, **quiet)
    except UnreachableError as error:
        raise ConfigError(error.message) from error
    except (ConnectionError, RuntimeError, RayError) as error:
        raise ConfigError(_away(tasks.address, error)) from error


def _away(address: str, error: Exception) -> str:
    said = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return (
        f"workers.address is {address}, where no cluster of Ray answers ({said}): start one (ray start --head), or set "
        "RAY_AUTH_TOKEN where it asks for a token"
    )


def _check_room(tasks: RayTasks) -> None:
    rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": tasks.cpus, "GPU": tasks.gpus}
    if any(all(room.get(name, 0) >= needed for name, needed in wanted.items()) for room in rooms):
        return
    had = "; ".join(f"{room.get('CPU', 0):g} CPUs and {room.get('GPU', 0):g} GPUs" for room in rooms)
    raise ConfigError(
        f"a worker takes {tasks.cpus:g} CPUs and {tasks.gpus:g} GPUs, and no machine of the cluster has both ({had}): "
        "lower workers.cpus or workers.gpus"
    )


@dataclass(slots=True)
class _Running:
    """Satisfies ``Crew``."""

    folder: StudyFolder
    running: list[Any]
    said: list[str] = field(default_factory=list)
    """How those ended that have."""
    began: float = field(default_factory=time.monotonic)

    def at_work(self) -> bool:
        ended, self.running = ray.wait(self.running, num_returns=len(self.running), timeout=0)
        self.said += [_how(each) for each in ended]
        if time.monotonic() - self.began > WAIT_S:
            self.began = math.inf
            if not any(self.folder.workers.glob("*.lock")):
                print(f"no worker has begun for {WAIT_S:g} s: the cluster has no room now; waiting", file=sys.stderr)
        return bool(self.running)

    def stop(self) -> None:
        for each in self.running:
            ray.cancel(each)

    def interrupted(self) -> bool:
        return STOPPED in self.said

    def undone(self) -> str:
        return next(filter(None, reversed(self.said)), "the workers ended before the trials did")

    def end(self) -> None:
        """Have none of them go on."""
        for each in self.running:
            ray.cancel(each, force=True)


def _how(ended: Any) -> str:
    try:
        return str(ray.get(ended))
    except TaskCancelledError:
        return STOPPED
    except RayTaskError as error:
        return " ".join(str(error.cause).split())[:300]
    except RayError as error:
        said = " ".join(str(error).split())[:200]
        return f"a worker died {DEATHS + 1} times before the trials were done ({said}); what was found is kept"


def _worked(folder: str, phase: str, at: int, place: str, version: str) -> str:
    """A worker, on whichever machine: empty when there is nothing left to do, or why it ended before."""
    if version != fettle.__version__:
        return f"{socket.gethostname()} has fettle {fettle.__version__}, and this is {version}: install the same on all"
    if not Path(folder).is_dir():
        return f"{socket.gethostname()} does not see {folder}: put studies into a folder that all machines share"
    if Path(place).is_dir():
        os.chdir(place)
    there = StudyFolder.open(Path(folder))
    with log_of(there, phase, at).open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            return DONE if Tuning.at(there).work(phase, say) else STOPPED
        except FettleError as error:
            return error.message
