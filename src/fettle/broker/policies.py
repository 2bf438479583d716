"""A policy of a broker, and what is told of each."""

import asyncio
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.broker.oplog import OpLog
from fettle.broker.promises import Promise
from fettle.broker.samplers import BrokerSampler
from fettle.calls import Call, Close, Create, Forward, ForwardBackward, OptimStep, Pin, Restore, Save, Undo
from fettle.config import AdamW, LossConfig, PolicySpec
from fettle.types import Checkpoint, Datum, ForwardResult, OptimResult


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """How a policy stands."""

    name: str
    spec: PolicySpec | None
    """What it was made of; None where a checkpoint was loaded, which says it."""
    tenant: str
    incarnation: int
    next_seq: int
    version: int
    parked: bool


class Policies(Mapping[str, PolicyInfo]):
    """Those that are open, as they stand when one is looked up."""

    def __init__(self, logs: Mapping[str, OpLog]) -> None:
        self._logs = logs

    def __getitem__(self, name: str) -> PolicyInfo:
        log = self._logs[name]
        if log.closed:
            raise KeyError(name)
        spec = log.call.spec if isinstance(log.call, Create) else None
        return PolicyInfo(name, spec, log.tenant, log.incarnation, log.next_seq, log.version, log.written.parked)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, log in self._logs.items() if not log.closed])

    def __len__(self) -> int:
        return sum(not log.closed for log in self._logs.values())


@dataclass(frozen=True, slots=True)
class Doors:
    """What a policy asks of its broker."""

    submit: Callable[[str, int, int, Call], Promise]
    pinned: Callable[[str], BrokerSampler]
    release: Callable[[str], None]


class BrokerPolicy:
    """Satisfies ``Policy``. A call takes its number when it is issued, before it first waits."""

    def __init__(self, doors: Doors, name: str, incarnation: int) -> None:
        self.name = name
        self._doors = doors
        self._incarnation = incarnation
        self._next = 0

    async def forward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """The loss and log-probabilities, with no gradient."""
        found: ForwardResult = await self._carried_out(Forward(data, loss))
        return found

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Accumulate the gradient of the weighted sum."""
        found: ForwardResult = await self._carried_out(ForwardBackward(data, loss))
        return found

    async def optim_step(self, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """Apply the accumulated gradients."""
        stepped: OptimResult = await self._carried_out(OptimStep(optimizer, undoable, empty))
        return stepped

    async def undo(self) -> OptimResult:
        """Take the last step back."""
        undone: OptimResult = await self._carried_out(Undo())
        return undone

    async def sampler(self) -> BrokerSampler:
        """A sampler of the weights after every call issued so far; they are let go with it."""
        promise = self._promised(Pin())
        sampler = self._doors.pinned(promise.id)
        release, loop = self._doors.release, asyncio.get_running_loop()
        weakref.finalize(sampler, _on, loop, release, promise.id)
        await promise.result()
        return sampler

    async def save(self, name: str, *, optimizer: bool = True) -> Checkpoint:
        """Write a checkpoint."""
        saved: Checkpoint = await self._carried_out(Save(name, optimizer))
        return saved

    async def restore(self, checkpoint: str, *, optimizer: bool) -> int:
        """Take up a checkpoint's weights in place."""
        version: int = await self._carried_out(Restore(checkpoint, optimizer))
        return version

    async def close(self) -> None:
        """Give its memory back once every call issued so far is done."""
        await self._carried_out(Close())

    async def _carried_out(self, call: Call) -> Any:
        return await self._promised(call).result()

    def _promised(self, call: Call) -> Promise:
        promise = self._doors.submit(self.name, self._incarnation, self._next, call)
        self._next += 1
        promise.acknowledge()  # Nobody else has these numbers, so nobody asks again.
        return promise


def _on(loop: asyncio.AbstractEventLoop, release: Callable[[str], None], pin: str) -> None:
    """Release a pin from whatever thread collects garbage."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(release, pin)
