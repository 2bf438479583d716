"""The line in which the calls of one run reach the service: one after another, as they were issued."""

import asyncio
from collections.abc import Mapping

from fettle.client.transport import Transport
from fettle.frames import Tree


class Line:
    """Gives calls their numbers and sends them; never waits for what a call comes to.

    One that is refused has its own error, and the next one takes its number if that was not used up. A request that is
    under way goes to its end even where its caller has gone.
    """

    def __init__(self, transport: Transport, run_id: str, *, incarnation: int, next_seq: int) -> None:
        self._transport = transport
        self._run = f"/v1/runs/{run_id}"
        self._incarnation = incarnation
        self._next: int | None = next_seq
        self._turn = asyncio.Lock()
        self._under_way: set[asyncio.Task[str]] = set()

    def put(self, door: str, said: Mapping[str, Tree]) -> asyncio.Future[str]:
        """Put a call behind those before it; the promise's id, once the service has taken it in.

        Its error is what it was refused with.
        """
        # Tasks reach the lock in the order they are made.
        task = asyncio.get_running_loop().create_task(self._sent(door, said))
        self._under_way.add(task)  # the event loop alone would not keep it alive
        task.add_done_callback(self._under_way.discard)
        return asyncio.shield(task)

    async def _sent(self, door: str, said: Mapping[str, Tree]) -> str:
        async with self._turn:
            if self._next is None:
                self._next = await self._next_at_the_service()
            seq, self._next = self._next, None  # whether an answer was lost is for the service to say
            numbered = {"incarnation": self._incarnation, "seq": seq, **said}
            taken = await self._transport.post(f"{self._run}/{door}", numbered)
            self._next = seq + 1
            return str(taken["id"])

    async def _next_at_the_service(self) -> int:
        return int((await self._transport.get(self._run))["next_seq"])
