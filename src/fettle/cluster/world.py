"""Processes that torchrun or SLURM has started: how many, which of them this is, and where they find each other."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from fettle.errors import ConfigError

PORTS = range(20_000, 30_000)
"""Where the first process waits for the others, by the number of SLURM's job, unless MASTER_PORT says it."""
HOST = re.compile(r"([^,\[]+)(?:\[(\w+)[^\]]*\]([^,\[]*))?")
"""The first of SLURM's list of machines: ``gpu[07-09,12]``."""


@dataclass(frozen=True)
class World:
    """What a process was told by whoever started it and others beside it."""

    rank: int
    size: int
    local: int
    """Which of the processes on its machine it is."""
    host: str
    port: int
    kept: bool
    """Whether whoever started them keeps the place where they meet; else the first of them does."""
    begun: int
    """How often all of them were started anew."""
    by: str

    def address(self) -> str:
        """Of this machine, as the others see it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.connect((self.host, self.port))
            found: str = there.getsockname()[0]
        return found


def world(environment: Mapping[str, str]) -> World | None:
    """The processes that this one is of; None where nobody has started it with others.

    Raises:
        ConfigError: what it was told does not go together.
    """
    torchrun = "RANK" in environment and "WORLD_SIZE" in environment
    if not torchrun and not ("SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment):
        return None
    try:
        found = _of_torchrun(environment) if torchrun else _of_slurm(environment)
    except (KeyError, ValueError) as error:
        by = "torchrun's" if torchrun else "SLURM's"
        raise ConfigError(
            f"{by} variables do not say where the processes meet ({error}): start them with it"
        ) from error
    if not 0 <= found.rank < found.size:
        raise ConfigError(
            f"this is process {found.rank} of {found.size}, by {found.by}'s variables: start them with it"
        )
    return found


def _of_torchrun(environment: Mapping[str, str]) -> World:
    return World(
        rank=int(environment["RANK"]),
        size=int(environment["WORLD_SIZE"]),
        local=int(environment.get("LOCAL_RANK", "0")),
        host=environment["MASTER_ADDR"],
        port=int(environment["MASTER_PORT"]),
        kept=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        begun=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
        by="torchrun",
    )


def _of_slurm(environment: Mapping[str, str]) -> World:
    job = int(environment.get("SLURM_JOB_ID", "0")) * 64 + int(environment.get("SLURM_STEP_ID", "0"))
    return World(
        rank=int(environment["SLURM_PROCID"]),
        size=int(environment.get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"]),
        local=int(environment.get("SLURM_LOCALID", "0")),
        host=environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
        port=int(environment.get("MASTER_PORT") or PORTS[job % len(PORTS)]),
        kept=False,
        begun=int(environment.get("SLURM_RESTART_COUNT", "0")),
        by="SLURM",
    )


def first_host(machines: str) -> str:
    """The first machine of a list that SLURM has written."""
    found = HOST.match(machines)
    if found is None:
        raise ValueError(f"no machine in {machines!r}")
    return "".join(part or "" for part in found.groups())
