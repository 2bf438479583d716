"""What durability costs an operation: a broker that keeps a journal, against one that keeps none.

The operation is a forward pass on 8 sequences of the workload, by a model of one block of width 16, so that computing
does not drown what is asked about; sent one at a time (idle) and 64 at once (pipelined). An operation is over when its
record is on the disk and its answer is there and taken.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import models
from benchmarks.figures import spread
from benchmarks.harness import CACHE, Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.models import Size
from benchmarks.workload import completions, training_data, workload
from fettle.broker import Broker
from fettle.calls import Create, Forward
from fettle.config import PPO, JournalSettings, LocalEngine, PolicySpec
from fettle.engine.local import LocalBackend
from fettle.types import Datum

ROW = Row(
    name="journal",
    work="durability of one operation: written before it is carried out, on the disk before it is acknowledged",
    peer="the same broker without a journal",
    target=2.0,
    better="lower",
    unit="ms",
)
PIPELINED = 64
LEAST = Size(16, 1, 2, 1, 8, 32, 512)
PIPELINED_TARGET = 1.0
"""Milliseconds an operation, where many share a turn of the disk."""

Sent = Callable[[int], Awaitable[float]]
"""Sends so many operations at once; seconds until all are over."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row: medians of differences between neighbouring turns."""
    return asyncio.run(_measured(settings))


async def _measured(settings: Settings) -> Outcome:
    work = workload(settings, size="tiny")
    data = training_data(work, completions(work))[:8]
    chosen = LocalEngine(device=settings.device, threads=settings.threads)
    CACHE.mkdir(parents=True, exist_ok=True)  # on a disk, where a folder for scratch may be memory
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        least = models.cached("least", asdict(LEAST), lambda place: models.make(LEAST, None, place))
        journaled = await Broker.recovered(
            LocalBackend(chosen, checkpoints=Path(folder)), Path(folder) / "journal", JournalSettings()
        )
        plain = Broker(LocalBackend(chosen, checkpoints=Path(folder)))
        for broker in (journaled, plain):
            await broker.open("run", Create(PolicySpec(model=least))).result()
        ours, peer = _sent(journaled, data), _sent(plain, data)
        turns = 10 if settings.quick else 100
        idle = [await _turn(ours, peer, 1, first=n % 2 == 0) for n in range(turns)][2:]
        together = [await _turn(ours, peer, PIPELINED, first=n % 2 == 0) for n in range(max(4, turns // 10))][1:]
        for broker in (journaled, plain):
            broker.close()
    pipelined = statistics.median(one - other for one, other in together)
    return Outcome(
        statistics.median(one - other for one, other in idle),
        {"idle_milliseconds": spread([one for one, _ in idle]), "pipelined": spread([one for one, _ in together])},
        {"idle_milliseconds": spread([other for _, other in idle]), "pipelined": spread([o for _, o in together])},
        notes=[f"pipelined, {PIPELINED} at once: {pipelined:.3f} ms more an operation"],
        further={f"pipelined under {PIPELINED_TARGET:g} ms an operation": pipelined <= PIPELINED_TARGET},
    )


async def _turn(ours: Sent, peer: Sent, count: int, *, first: bool) -> tuple[float, float]:
    """Milliseconds an operation of either side, in alternating order."""
    if first:
        one, other = await ours(count), await peer(count)
    else:
        other, one = await peer(count), await ours(count)
    return 1e3 * one / count, 1e3 * other / count


def _sent(broker: Broker, data: Sequence[Datum]) -> Sent:
    number = 0

    async def sent(count: int) -> float:
        nonlocal number
        started = time.perf_counter()
        promises = [broker.submit("run", 0, number + i, Forward(data, PPO())) for i in range(count)]
        number += count
        for promise in promises:
            await promise.durable()
            await promise.result()
            promise.acknowledge()  # within the clock: what it costs is not left to the other side's turn
        return time.perf_counter() - started

    return sent


if __name__ == "__main__":
    main(ROW, measured)
