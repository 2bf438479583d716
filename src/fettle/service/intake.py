"""How much of large bodies is here at a time; the others wait, and are not read meanwhile."""

import asyncio

MIB = 1 << 20
MOST_AT_A_TIME = 64 * MIB
"""Bytes of bodies that are being read, or wait to be parsed; one alone may have more."""


class Intake:
    """Counts what readers hold, piece by piece: who dribbles takes no more than what has come.

    The reader that has held something longest is never kept waiting, so that there is always one that comes to its end.
    The others wait in the order in which they ask, also those who could go on with less.
    """

    def __init__(self, most: int = MOST_AT_A_TIME) -> None:
        self._most = most
        self._held: dict[object, int] = {}
        self._total = 0
        self._waiting: dict[object, tuple[int, asyncio.Future[None]]] = {}

    async def take(self, reader: object, nbytes: int) -> None:
        """Return once there is room for so many bytes more of a reader, which asks for one piece at a time."""
        let_in = asyncio.get_running_loop().create_future()
        self._waiting[reader] = (nbytes, let_in)
        self._let_in()
        await let_in

    def give_back(self, reader: object) -> None:
        """What a reader holds is no longer there, nor does it wait; said twice, it is the same."""
        self._waiting.pop(reader, None)
        self._total -= self._held.pop(reader, 0)
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            oldest, first = next(iter(self._held), None), next(iter(self._waiting))
            reader = oldest if oldest in self._waiting else first
            nbytes, let_in = self._waiting[reader]
            if oldest not in (None, reader) and self._total + nbytes > self._most:
                return
            del self._waiting[reader]
            self._held[reader] = self._held.get(reader, 0) + nbytes
            self._total += nbytes
            if not let_in.done():
                let_in.set_result(None)
