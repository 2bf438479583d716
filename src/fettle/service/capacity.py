"""Whether a policy has room on the device: decided before anything is allocated."""

import asyncio
from collections.abc import Callable, Iterable

from fettle.config import PolicySpec
from fettle.engine.base import Capabilities
from fettle.errors import BusyError, ModelError

GIB = 2**30
USABLE = 0.9
"""Of a device's memory; the rest is for what a step computes on the way."""
ROOM_AGAIN_S = 60.0
"""After which it is worth asking again where others hold the memory."""


def fits(capabilities: Capabilities, needed: int, used: int) -> None:
    """Refuses a policy that needs more bytes than the device has beside those that are used.

    Raises:
        ModelError: it would not fit if it were alone.
        BusyError: it would, and others are in its way.
    """
    usable = int(USABLE * capabilities.memory_bytes)
    if not usable:  # a device that is not here cannot be asked
        return
    if needed > usable:
        raise ModelError(
            f"this run needs {needed / GIB:.1f} GiB, and {capabilities.device} has {usable / GIB:.1f} GiB to give: "
            "train an adapter, a lower rank or a smaller model"
        )
    if needed + used > usable:
        raise BusyError(
            f"this run needs {needed / GIB:.1f} GiB, and {(usable - used) / GIB:.1f} of {usable / GIB:.1f} GiB are "
            "free: pause or complete another, or wait",
            ROOM_AGAIN_S,
        )


class Room:
    """A device's memory, and how to tell what a policy takes of it.

    It is told from models' settings and not measured: what is missed here, the engine refuses when memory runs out.
    """

    def __init__(self, capabilities: Capabilities, bytes_of: Callable[[PolicySpec], int]) -> None:
        self._capabilities = capabilities
        self._bytes_of = bytes_of

    async def check(self, wanted: PolicySpec, others: Iterable[PolicySpec]) -> None:
        """Refuses a policy that has no room beside the others.

        Raises:
            BusyError: they are in its way.
            ModelError: it would not fit if it were alone.
        """
        specs = list(others)

        def told() -> tuple[int, int]:
            return self._bytes_of(wanted), sum(self._bytes_of(spec) for spec in specs)

        fits(self._capabilities, *await asyncio.to_thread(told))
