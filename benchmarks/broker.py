"""The broker's overhead: what passes in one operation through it besides the backend's own call.

The operation is a forward pass of the tiny model on the whole batch of the workload, 128 sequences with everything that
a policy gradient reads, so that what the broker does with data is what it does with them in a run. The backend's call
is timed where it is made, inside the operation: two calls of 150 ms each differ by more than a millisecond.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

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


class Timed(LocalBackend):
    """The backend, which tells how long each forward pass took it."""

    seconds: list[float]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The forward pass, timed."""
        started = time.perf_counter()
        try:
            return super().forward(*args, **kwargs)
        finally:
            self.seconds.append(time.perf_counter() - started)


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row: the median of what operations took beyond the backend's call."""
    return asyncio.run(_measured(settings))


async def _measured(settings: Settings) -> Outcome:
    work = workload(settings, size="tiny")
    data = training_data(work, completions(work))
    with tempfile.TemporaryDirectory() as folder:
        chosen = LocalEngine(device=settings.device, threads=settings.threads)
        backend = Timed(chosen, checkpoints=Path(folder))
        backend.seconds = []
        broker = Broker(backend)
        policy = await broker.create_policy(PolicySpec(model=work.model))
        taken = []
        for _ in range(10 if settings.quick else 100):
            started = time.perf_counter()
            await policy.forward(data, PPO())
            taken.append(time.perf_counter() - started)
        broker.close()
    warm = slice(2, None)
    computed = backend.seconds[warm]
    beyond = [1e3 * (whole - own) for whole, own in zip(taken[warm], computed, strict=True)]
    return Outcome(
        statistics.median(beyond),
        {"milliseconds beyond the call": spread(beyond)},
        {"milliseconds": spread([1e3 * own for own in computed])},
    )


if __name__ == "__main__":
    main(ROW, measured)
