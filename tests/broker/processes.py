"""A broker on a journal and its backend, which end together, and what is sent to it."""

import asyncio
from pathlib import Path

from fettle.broker import Broker, Promise
from fettle.calls import Call, Create, ForwardBackward, OptimStep
from fettle.config import AdamW, CausalLM, JournalSettings, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.errors import StorageError
from fettle.types import Datum, datum
from tests.broker.tallies import TallyBackend

SETTINGS = JournalSettings(snapshot_operations=10**6, snapshot_seconds=10**6)
REQUEST = SampleRequest([1, 2], 2, SamplingParams(max_tokens=4))
STEP = OptimStep(AdamW(), empty=True)


def data(*tokens: int) -> list[Datum]:
    return [datum([1, *tokens], [0] + [1] * len(tokens))]


def call(n: int) -> ForwardBackward:
    return ForwardBackward(data(n), CausalLM())


class Process:
    """A broker and its backend, which end together."""

    def __init__(self, folder: Path, settings: JournalSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.backend = TallyBackend(folder / "checkpoints")
        self.broker: Broker

    async def started(self) -> "Process":
        self.broker = await Broker.recovered(self.backend, self.folder / "journal", self.settings)
        return self

    def killed(self) -> None:
        """As SIGKILL leaves it: what was written is there, and nothing more is."""
        journal = self.broker._journal
        journal.failed = StorageError("killed")
        self.backend.open_gate.set()
        self.broker.close()

    async def written(self) -> None:
        """Return once no snapshot is under way."""
        while waiting := [log.written.taking for log in self.broker._desk.logs.values() if log.written.taking]:
            await asyncio.gather(*waiting)

    def tally(self, policy: str = "run") -> str:
        return self.backend.policies[policy]["tally"]


def opened(process: Process, name: str = "run", *, seed: int = 0) -> Promise:
    return process.broker.open(name, Create(PolicySpec(model="model", seed=seed)))


async def done(process: Process, *calls: Call, first: int = 0, incarnation: int = 0) -> list[Promise]:
    promises = [process.broker.submit("run", incarnation, first + i, each) for i, each in enumerate(calls)]
    for promise in promises:
        await promise.settled()
    return promises
