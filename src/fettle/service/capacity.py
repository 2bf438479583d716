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
    usable = _usable(capabilities, needed)
    if usable and needed + used > usable:
        raise BusyError(
            f"this run needs {needed / GIB:.1f} GiB, and {(usable - used) / GIB:.1f} of {usable / GIB:.1f} GiB are "
            "free: pause or complete another, or wait",
            ROOM_AGAIN_S,
        )


def fits_share(capabilities: Capabilities, needed: int, own: int, share: float) -> None:
    """Refuses a policy that would bring its tenant's beyond the share of the device that one may hold.

    A single one may be as large as the device.

    Raises:
        ModelError: it would not fit if it were alone.
        BusyError: it would, and its tenant's own are in its way.
    """
    usable = _usable(capabilities, needed)
    if usable and own and needed + own > share * usable:
        raise BusyError(
            f"this run needs {needed / GIB:.1f} GiB, your others hold {own / GIB:.1f}, and one tenant's may hold "
            f"{share * usable / GIB:.1f} of {usable / GIB:.1f} GiB together: pause or complete one",
            ROOM_AGAIN_S,
        )


def _usable(capabilities: Capabilities, needed: int) -> int:
    """Of a device's memory; 0 of one that is not here, which cannot be asked."""
    usable = int(USABLE * capabilities.memory_bytes)
    if usable and needed > usable:
        raise ModelError(
            f"this run needs {needed / GIB:.1f} GiB, and {capabilities.device} has {usable / GIB:.1f} GiB to give: "
            "train an adapter, a lower rank or a smaller model"
        )
    return usable


class Room:
    """A device's memory, and how to tell what a policy takes of it; ``share`` is what one tenant's may hold together.

    It is told from models' settings and not measured: what is missed here, the engine refuses when memory runs out.
    """

    def __init__(
        self, capabilities: Capabilities, bytes_of: Callable[[PolicySpec], int], *, share: float = 1.0
    ) -> None:
        self._capabilities = capabilities
        self._bytes_of = bytes_of
        self._share = share

    async def check(self, wanted: PolicySpec, others: Iterable[PolicySpec]) -> None:
        """Refuses a policy that has no room beside the others.

        Raises:
            BusyError: they are in its way.
            ModelError: it would not fit if it were alone.
        """
        fits(self._capabilities, *await self._told(wanted, others))

    async def check_share(self, wanted: PolicySpec, own: Iterable[PolicySpec]) -> None:
        """Refuses a policy that its tenant's own have left too little of a share for.

        Raises:
            BusyError: they have.
            ModelError: it would not fit if it were alone.
        """
        fits_share(self._capabilities, *await self._told(wanted, own), self._share)

    async def _told(self, wanted: PolicySpec, others: Iterable[PolicySpec]) -> tuple[int, int]:
        """Bytes of the one, and of the others together."""
        specs = list(others)
        return await asyncio.to_thread(lambda: (self._bytes_of(wanted), sum(map(self._bytes_of, specs))))
