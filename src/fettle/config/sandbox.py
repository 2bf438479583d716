"""Where code that nobody vouches for runs, and what it may use up."""

from typing import Annotated, Literal

from pydantic import Field

from fettle.config.base import Frozen


class SandboxSettings(Frozen):
    """A sandbox: how strictly it confines, and the limits of one program in it."""

    isolation: Literal["strongest", "namespaces", "rlimits", "none"] = "strongest"
    """``strongest``: namespaces and a filter of system calls, or nothing runs. ``namespaces`` does without the filter
    where none is to be had; ``rlimits`` without a file system, processes and a network of its own; ``none`` keeps only
    to time and output."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Programs that run at once; null for as many as there are processors."""
    seconds: Annotated[float, Field(gt=0)] = 5.0
    """Time of one program, by the clock and by the processor."""
    memory_mib: Annotated[int, Field(ge=64)] = 512
    """Memory of all its processes together."""
    processes: Annotated[int, Field(ge=1)] = 64
    """Processes and threads it may have at once."""
    disk_mib: Annotated[int, Field(ge=1)] = 64
    """Size of all its files, one for each 16 KiB at most, which are gone when it ends."""
    output_kib: Annotated[int, Field(ge=1)] = 256
    """What it may write to each of its standard output and standard error."""
