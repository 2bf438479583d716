"""The broker's overhead: one operation through it, against the same call of the backend itself.

The operation is a forward pass of the tiny model on the whole batch of the workload, 128 sequences with everything that
a policy gradient reads, so that what the broker does with data is what it does with them in a run.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.figures import spread
from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.workload import completions, training_data, workload
from fettle.broker import Broker
from fettle.config import PPO, LocalEngine, PolicySpec
from fettle.engine.local import LocalBackend

ROW = Row(
    name="broker",
    work="overhead of the broker for one operation, in process",
    peer="the same call of the backend itself",
    target=1.0,
    better="lower",
    unit="ms",
)


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row: the median of differences between neighbouring calls."""
    return asyncio.run(_measured(settings))


async def _measured(settings: Settings) -> Outcome:
    work = workload(settings, size="tiny")
    data = training_data(work, completions(work))
    with tempfile.TemporaryDirectory() as folder:
        chosen = LocalEngine(device=settings.device, threads=settings.threads)
        backend = LocalBackend(chosen, checkpoints=Path(folder))
        broker = Broker(backend)
        policy = await broker.create_policy(PolicySpec(model=work.model))

        async def through() -> float:
            started = time.perf_counter()
            await policy.forward(data, PPO())
            return time.perf_counter() - started

        def direct() -> float:
            started = time.perf_counter()
            backend.forward(policy.name, data, PPO())
            return time.perf_counter() - started

        async def beside() -> float:
            # On the engine's own thread, where the operation is carried out too.
            return await broker.run(direct)

        pairs = []
        for repetition in range(10 if settings.quick else 100):
            if repetition % 2:
                ours, peer = await through(), await beside()
            else:
                peer = await beside()
                ours = await through()
            pairs.append((1e3 * ours, 1e3 * peer))
        broker.close()
    pairs = pairs[2:]  # warm-up
    return Outcome(
        statistics.median(ours - peer for ours, peer in pairs),
        {"milliseconds": spread([ours for ours, _ in pairs])},
        {"milliseconds": spread([peer for _, peer in pairs])},
    )


if __name__ == "__main__":
    main(ROW, measured)
