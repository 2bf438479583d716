"""Memory that runs out, as an error of ours that says what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from fettle.errors import EngineError

_REFUSED = re.compile(r"DefaultCPUAllocator|can't allocate memory|out of memory", re.IGNORECASE)
"""How torch says, in a RuntimeError, that there is no memory: for the CPU it has no type of its own."""


def room_for(nbytes: int) -> None:
    """See to it that the machine has so much memory of its own to give, which it may promise and not have.

    Raises:
        MemoryError: it has not.
    """
    free = psutil.virtual_memory().available
    if nbytes > free:
        raise MemoryError(f"{nbytes} bytes are needed, and {free} are free")


@contextmanager
def enough_memory(what: str, mend: str) -> Iterator[None]:
    """What is done inside (``to sample``) may run out of memory; ``mend`` says what helps then.

    Raises:
        EngineError: it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or _REFUSED.search(str(error))):
            raise
        raise EngineError(f"there is not enough memory {what}: {mend}") from error
