"""The line in which the calls of one run reach the service: one after another, as they were issued."""

import asyncio
from collections.abc import Callable, Mapping

from fettle.client.transport import Transport
from fettle.errors import BusyError, SequenceError, StorageError, UnreachableError
from fettle.frames import Tree

Said = Callable[[Mapping[str, Tree]], Mapping[str, Tree]]
"""What a call says, once the run is known as the service describes it."""


class Line:
    """Gives calls their numbers and sends them; never waits for what a call comes to.

    One that is refused has its own error, and the next one takes its number if that was not used up. A request that is
    under way goes to its end even where its caller has gone. With ``take_over``, whoever held the run before is shut
    out before the first call; one that is ``shared`` asks for its place before each.
    """

    def __init__(self, transport: Transport, run_id: str, *, take_over: bool = False, shared: bool = False) -> None:
        self._transport = transport
        self._path = f"/v1/runs/{run_id}"
        self._take_over = take_over
        self._shared = shared
        self.run: Mapping[str, Tree] = {}
        """As the service described it before the first call; empty until then."""
        self._next: int | None = None
        self._turn = asyncio.Lock()
        self._under_way: set[asyncio.Task[str]] = set()

    def put(self, door: str, said: Said) -> asyncio.Future[str]:
        """Put a call behind those before it; the promise's id, once the service has taken it in.

        Its error is what it was refused with.
        """
        # Tasks reach the lock in the order they are made.
        task = asyncio.get_running_loop().create_task(self._sent(door, said))
        self._under_way.add(task)  # the event loop alone would not keep it alive
        task.add_done_callback(self._under_way.discard)
        return asyncio.shield(task)

    async def _sent(self, door: str, said: Said) -> str:
        async with self._turn:
            if self._next is None or self._shared:
                self._next = await self._place()
            while True:
                seq, self._next = self._next, None  # whether an answer was lost is for the service to say
                numbered = {"incarnation": self.run["incarnation"], "seq": seq, **said(self.run)}
                taken = await self._taken_in(f"{self._path}/{door}", numbered)
                if taken is not None:
                    self._next = int(taken.rpartition(".")[2]) + 1  # a verb may have used several numbers
                    return taken

    async def _taken_in(self, path: str, numbered: Mapping[str, Tree]) -> str | None:
        """The promise's id; None where somebody else, who works on the run beside us, had the number first."""
        try:
            return str((await self._transport.post(path, numbered, patience=0.0))["id"])
        except SequenceError:
            # It was sent once, so it was not taken in; the next number is free, unless we were shut out.
            following = await self._place()
            if following <= numbered["seq"]:
                raise
            self._next = following
            return None
        except (UnreachableError, BusyError, StorageError):
            return str((await self._transport.post(path, numbered))["id"])

    async def _place(self) -> int:
        """The next number, as the service has it."""
        if self._take_over:
            await self._transport.post(f"{self._path}/attach")
            self._take_over = False
        run = await self._transport.get(self._path)
        if not self.run:
            self.run = {**run, "incarnation": run["incarnation"] or 0}
        if run["incarnation"] not in (self.run["incarnation"], None):
            return 0  # another one's numbers: ours are refused
        return run["next_seq"] or 0  # nobody holds a run that is over, and the call is told so
