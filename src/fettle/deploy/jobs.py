"""A run as a job of a Ray cluster that is there: what is sent, and how the job is doing."""

import logging
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray.job_submission import JobDetails, JobSubmissionClient

from fettle.config import Pipeline, RunConfig, StageConfig, with_models
from fettle.config.load import dump, leaves
from fettle.config.runs import names_stage
from fettle.deploy.begun import entrypoint
from fettle.errors import (
    ConfigError,
    DataError,
    EngineError,
    NotFoundError,
    StateError,
    TooLargeError,
    UnreachableError,
)

CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray's that tell of every file that is sent, and every connection that ends."""
RECIPE = "recipe.yaml"
MOST_BYTES = 100 << 20
"""Of what is sent with a recipe."""
FUNCTION = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:\w+")
"""How a recipe names code beside it."""
CONNECTING = 10.0
"""Seconds in which a cluster must be found."""
BEGINNING = 60.0
"""Seconds that a cluster which has just begun has until it takes jobs."""
NO_AGENT = "No available agent"
"""What it says until then."""
STOPPING = 600
"""Seconds that a job that is stopped has for its last step and a checkpoint."""
TRIES = 3
SETTLING = 3.0
"""Seconds in which a cluster has mostly let go of a job that has ended: until then it may end another of that name."""
OF_THE_LAST = "supervisor actor died"
"""What it says then."""
PENDING, FAILED = "PENDING", "FAILED"
ENDED = frozenset({"SUCCEEDED", FAILED, "STOPPED"})


@dataclass(frozen=True)
class Standing:
    """How a job is doing."""

    status: str
    message: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ENDED


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, address: str) -> None:
        """``address`` is that of the cluster's dashboard, ``http://HEAD:8265``.

        Raises:
            ConfigError: it is not written so.
            UnreachableError: nothing answers there, or not as a cluster would.
        """
        self._address = address
        place = urlsplit(address)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ConfigError(f"--address is {address}: write that of the cluster's dashboard, as http://HEAD:8265")
        try:
            port = place.port or (443 if place.scheme == "https" else 80)
            socket.create_connection((place.hostname, port), timeout=CONNECTING).close()
        except (OSError, ValueError) as error:
            raise UnreachableError(
                f"nothing answers at {address} ({error}): give --address as http://HEAD:8265, where the head of the "
                "cluster has its dashboard"
            ) from error
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._told():
            self._client = JobSubmissionClient(address)

    def begin(self, run: str, command: str, folder: Path, *, variables: Mapping[str, str], cpus: float) -> None:
        """Have a command run once in a copy of a folder, on any machine with so many processors.

        Raises:
            StateError: there is a job of that name already.
        """
        known = self._found(run)
        if known is not None:
            raise StateError(
                f"there is a run {run} at {self._address} already, and it is {known.status}: see how it does with "
                f"--status {run}, "
                + ("go on with it with --again, or give another --id" if known.ended else "or give another --id")
            )
        environment = {
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOPPING), **variables},
        }
        job = {"entrypoint": command, "submission_id": run, "runtime_env": environment, "entrypoint_num_cpus": cpus}
        until = time.monotonic() + BEGINNING
        with self._told():
            while True:
                try:
                    self._client.submit_job(**job)
                except RuntimeError as error:
                    if NO_AGENT not in str(error) or time.monotonic() > until:
                        raise
                    time.sleep(0.5)
                else:
                    return

    def standing(self, run: str) -> Standing:
        """How it is doing.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self._found(run)
        if found is None:
            raise NotFoundError(f"there is no run {run} at {self._address}")
        return found

    def forget(self, run: str) -> None:
        """Make room for another of that name, if it has ended.

        Raises:
            StateError: it has not.
        """
        known = self._found(run)
        if known is None:
            return
        if not known.ended:
            raise StateError(f"run {run} is {known.status}, and can be gone on with once it has ended: --stop {run}")
        with self._told():
            self._client.delete_job(run)

    def go_on(self, run: str, command: str, folder: Path, *, variables: Mapping[str, str], cpus: float) -> None:
        """The same as ``begin``, in the place of a job of that name that has ended.

        Raises:
            StateError: it has not.
        """
        for _ in range(TRIES):
            time.sleep(SETTLING)
            self.forget(run)
            self.begin(run, command, folder, variables=variables, cpus=cpus)
            if not self._ended_with_the_last(run):
                return

    def _ended_with_the_last(self, run: str) -> bool:
        """Whether the cluster, as it ended the last job of that name, has ended this one."""
        until = time.monotonic() + BEGINNING
        while (found := self.standing(run)).status == PENDING and time.monotonic() < until:
            time.sleep(0.5)
        return found.status == FAILED and OF_THE_LAST in found.message

    def stop(self, run: str) -> bool:
        """Ask it to save and end; returns whether it was under way."""
        if self.standing(run).ended:
            return False
        with self._told():
            return bool(self._client.stop_job(run))

    def printed(self, run: str) -> str:
        """All that it has printed so far."""
        self.standing(run)
        with self._told():
            return str(self._client.get_job_logs(run))

    async def following(self, run: str) -> AsyncIterator[str]:
        """What it has printed, and prints, until it ends."""
        self.standing(run)
        told = 0
        with self._told():
            async for lines in self._client.tail_job_logs(run):
                told += len(lines)
                yield lines
        yield self.printed(run)[told:]  # of a run that ends, the server may keep back the last lines

    def _found(self, run: str) -> Standing | None:
        with self._told():
            try:
                found: JobDetails = self._client.get_job_info(run)
            except RuntimeError as error:
                if "404" in str(error):
                    return None
                raise
        return Standing(found.status.value, found.message or "")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the cluster's server says no to, in a sentence."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the cluster at {self._address} did not do it: {_short(error)}") from error
        except OSError as error:  # of requests, and Ray's own, when it is gone
            raise UnreachableError(f"the cluster at {self._address} does not answer: {_short(error)}") from error


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def command(runs: str) -> str:
    """What the cluster runs in the folder that was sent: begins, or goes on with what is in ``runs``."""
    return entrypoint(runs, ["fettle", "train", RECIPE])


def packed(recipe: RunConfig, here: Path, folder: Path) -> list[Path]:
    """Put a recipe into a folder, with the data and code that it names beneath ``here``, which are returned.

    A model in a folder is named by its whole path: it is not sent.

    Raises:
        DataError: a file that it names is not there.
        TooLargeError: it is too much to send.
    """
    recipe = _with_whole_models(recipe)
    _check_there(recipe, here)
    sent = sorted(set(_named(recipe.model_dump(), here)))
    size = sum((here / path).stat().st_size for path in sent)
    if size > MOST_BYTES:
        largest = max(sent, key=lambda path: (here / path).stat().st_size)
        raise TooLargeError(
            f"what the recipe names is {size >> 20} MiB, the most of it {largest}, and {MOST_BYTES >> 20} are sent at "
            "most: put it where every machine of the cluster sees it, and name it by its whole path"
        )
    for path in sent:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here / path, folder / path)
    (folder / RECIPE).write_text(dump(recipe), encoding="utf-8")
    return sent


def _check_there(recipe: RunConfig, here: Path) -> None:
    for stage in recipe.stages if isinstance(recipe, Pipeline) else (recipe,):
        for key, _, name, value in leaves(stage):
            if name not in ("path", "heldout_path") or value is None or Path(value).is_absolute():
                continue  # what has a whole path is the cluster's own
            if not (here / value).is_file():
                raise DataError(f"{key} is {value}, and there is no such file here to send: correct the path")


def _named(settings: Any, here: Path) -> Iterator[Path]:
    """Files beneath a folder that settings name, each from there."""
    if isinstance(settings, Mapping):
        for value in settings.values():
            yield from _named(value, here)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _named(value, here)
    elif isinstance(settings, str) and settings:
        named = FUNCTION.fullmatch(settings)
        if named is not None:
            module = here / f"{named[1]}.py"
            for path in [module, *sorted((here / named[1]).rglob("*.py"))]:
                if path.is_file():
                    yield path.relative_to(here)
        elif not Path(settings).is_absolute() and len(settings) < 1000 and (here / settings).is_file():
            yield Path(settings)


def _with_whole_models(recipe: RunConfig) -> RunConfig:
    def whole(stage: StageConfig) -> StageConfig:
        return with_models(stage, lambda named: named if names_stage(named) else _whole(named))

    if isinstance(recipe, Pipeline):
        return recipe.model_copy(update={"stages": tuple(whole(stage) for stage in recipe.stages)})
    return whole(recipe)


def _whole(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else model
