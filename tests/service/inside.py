"""A service in the test's own event loop, and its state folder as a process that is killed leaves it."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fettle.broker import Promise
from fettle.calls import ForwardBackward, OptimStep
from fettle.cli.serving import opened
from fettle.config import AdamW, CausalLM, LocalEngine, PolicySpec, ServedModel, ServiceConfig
from fettle.service.callers import ANYBODY as ME
from fettle.service.core import Service
from fettle.types import datum

LORA = {"rank": 2}
PATIENCE_S = 20.0


class Machine:
    """Where services run, one after another, on one state folder."""

    def __init__(self, folder: Path, model: str) -> None:
        self.state = folder / "state"
        self._model = model
        self._image = folder / "image"

    @asynccontextmanager
    async def service(self, **settings: Any) -> AsyncIterator[Service]:
        """A service, until the block ends; its upkeep is the test's to begin."""
        given = {
            "models": (ServedModel(name="tiny", path=self._model),),
            "engine": LocalEngine(device="cpu", threads=1),
            "state": str(self.state),
            "auth": "none",
            **settings,
        }
        async with opened(ServiceConfig(**given)) as service:
            try:
                yield service
            finally:
                await service.stop(patience_s=2.0)

    def lose_power(self) -> None:
        """Nothing of what is written from here on will be found by the next service."""
        shutil.copytree(self.state, self._image)

    def come_back(self) -> None:
        """The state folder as it was when the power was lost."""
        shutil.rmtree(self.state)
        self._image.rename(self.state)


class Held:
    """The engine's thread, which does nothing until it is released."""

    def __init__(self, service: Service) -> None:
        self._begun, self._go_on = threading.Event(), threading.Event()
        self._done = asyncio.ensure_future(service.broker.run(self._hold))

    async def begun(self) -> "Held":
        """Return once it is held: what is submitted from here on waits."""
        await asyncio.to_thread(self._begun.wait, PATIENCE_S)
        return self

    def _hold(self) -> None:
        self._begun.set()
        self._go_on.wait(PATIENCE_S)

    def release(self) -> None:
        """Let it go on."""
        self._go_on.set()


async def new_run(service: Service, id: str, model: str = "tiny", **settings: Any) -> Promise:
    """The settled promise of a run that has begun, or could not."""
    promise = await service.create_run(ME, PolicySpec(model=model, lora=LORA), run_id=id, **settings)
    await promise.settled()
    return promise


async def saved(service: Service, id: str, name: str = "c", **settings: Any) -> Promise:
    """The settled promise of a checkpoint."""
    promise = await service.save(ME, id, None, None, **{"kind": "weights", **settings}, name=name)
    await promise.settled()
    return promise


async def trained(service: Service, id: str) -> None:
    """One step."""
    for call in (ForwardBackward([datum([1, 2, 3], [0, 1, 1])], CausalLM()), OptimStep(AdamW(learning_rate=0.1))):
        await service.submit(ME, id, None, None, call).result()


async def until(holds: Callable[[], object]) -> None:
    """Return once something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  of what is in memory nobody tells
            await asyncio.sleep(0.01)
