"""One step of a run looked at closely: the operators that its engine's thread spent it on."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from fettle.broker import Broker
from fettle.engine.local.profiling import Operator, OperatorProfile


class StepProfiler:
    """Satisfies ``Callback``: profiles the engine's thread from the end of the step before ``step`` to its own end."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.operators: list[Operator] = []
        """Empty until the step is done."""
        self._engine: Broker | None = None
        self._profile: OperatorProfile | None = None
        self._queued: list[asyncio.Task[None]] = []
        # torch's profiler tells standard error of itself, in the middle of the progress.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")

    @asynccontextmanager
    async def of(self, engine: Broker) -> AsyncIterator[None]:
        """For as long as the block lasts, the thread of this engine; a profile that is still going on ends with it.

        Raises:
            RuntimeError: torch's profiler failed, and the block did not.
        """
        self._engine = engine
        try:
            yield
        finally:
            self._queue(self._stop)
            ends = await asyncio.gather(*self._queued, return_exceptions=True)
            self._engine = None
        for failed in filter(None, ends):
            raise failed

    def after_step(self, step: int, row: Mapping[str, float]) -> bool:
        """Begins and ends where it should, and never ends the run."""
        if step == self.step - 1:
            self._queue(self._start)
        elif step == self.step:
            self._queue(self._stop)
        return False

    def after_evaluation(self, step: int, score: float, row: Mapping[str, float]) -> bool:
        """Nothing."""
        return False

    def _queue(self, call: Callable[[], None]) -> None:
        if self._engine is not None:
            self._queued.append(asyncio.ensure_future(self._engine.run(call)))

    def _start(self) -> None:
        self._profile = OperatorProfile()
        self._profile.start()

    def _stop(self) -> None:
        if self._profile is not None:
            self.operators, self._profile = self._profile.stop(), None


def middle_step(steps: int, *, evaluated_every: int) -> int:
    """A step from the middle of a run, if it can be one with no evaluation before it. A run of one step has none: 0."""
    if steps == 1:
        return 0
    middle = max(2, (steps + 1) // 2)
    return middle + 1 if (middle - 1) % evaluated_every == 0 and middle < steps else middle
