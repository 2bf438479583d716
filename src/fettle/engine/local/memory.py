"""Memory that runs out, as an error of ours that says what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fettle.errors import EngineError

_REFUSED = re.compile(r"DefaultCPUAllocator|can't allocate memory|out of memory", re.IGNORECASE)
"""How torch says, in a RuntimeError, that there is no memory: for the CPU it has no type of its own."""


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
