"""Remote environments: steps a second of episodes at a server, in a process of its own, against episodes in this one.

An environment that does nothing is all cost: what is measured is the way there and back. Both processes, and so both
sides of every message, share this machine's cores. ``python -m benchmarks.remote --serve`` is the server.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.figures import spread
from benchmarks.harness import ROOT, Outcome, Row, Settings, interleaved, main
from benchmarks.machine import Floor
from fettle.config import Arithmetic, EnvironmentServerConfig, Remote
from fettle.environments import Observation, StepResult, Suite
from fettle.environments.remote.client import RemoteSuite
from fettle.environments.remote.offers import Offer
from fettle.environments.remote.server import EnvironmentServer
from fettle.types import Message, Task

ROW = Row(
    name="remote",
    work="episodes of 16 steps over gRPC, 256 at once, 2 KB each way: steps a second",
    peer="the same episodes in this process",
    target=0.01,
)
ENOUGH = 2000.0
"""Steps a second: what the WebSocket of a known peer has carried on a machine like this, at its best."""
EPISODES, STEPS, BYTES = 256, 16, 2000


class Echo:
    """Says back what it is told, for so many steps."""

    def __init__(self) -> None:
        self._left = STEPS

    async def reset(self, task: Task) -> Observation:
        """The prompt."""
        return Observation(task.prompt)

    async def step(self, action: Message) -> StepResult:
        """The same again."""
        self._left -= 1
        said = (Message("user", action.content),)
        return StepResult(said, 1.0, terminated=not self._left, truncated=False, components={"echo": 1.0})

    async def close(self) -> None:
        """Nothing is held."""


class Echoes:
    """Satisfies ``Suite``."""

    name = "echo"

    def training_task(self, index: int) -> Task:
        """A number."""
        return Task((Message("user", str(index)),), {"answer": ""}, self.name)

    def heldout_tasks(self) -> Sequence[Task]:
        """One."""
        return (Task((Message("user", "held out"),), {"answer": ""}, self.name),)

    def environment(self) -> Echo:
        """A new one."""
        return Echo()


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    rounds = 1 if settings.quick else 4
    with _server() as address:
        there = RemoteSuite(Remote(address=address, environment="echo"))
        sides = {
            "ours": lambda: asyncio.run(_steps_a_second(there, rounds)),
            "peer": lambda: asyncio.run(_steps_a_second(Echoes(), 20 * rounds)),
        }
        found = interleaved(sides, settings.repetitions)
    ours, local = spread(found["ours"]), spread(found["peer"])
    note = f"A step in process takes {1e6 / local['median']:.0f} us, and over gRPC {1e6 / ours['median']:.0f} us."
    return Outcome(
        ours["median"] / local["median"],
        {"steps_per_second": ours},
        {"steps_per_second": local},
        notes=[note],
        further={f"at least {ENOUGH:g} steps a second over gRPC": ours["median"] >= ENOUGH},
    )


async def _steps_a_second(suite: Suite, rounds: int) -> float:
    action = Message("assistant", "x" * BYTES)

    async def played(index: int) -> None:
        for number in range(rounds):
            environment = suite.environment()
            await environment.reset(suite.training_task(index + EPISODES * number))
            for _ in range(STEPS):
                await environment.step(action)
            await environment.close()

    began = time.perf_counter()
    await asyncio.gather(*map(played, range(EPISODES)))
    return EPISODES * STEPS * rounds / (time.perf_counter() - began)


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.remote", "--serve"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.communicate()


async def _serve() -> None:
    server = EnvironmentServer(EnvironmentServerConfig(environments={"arithmetic": Arithmetic(heldout=1)}, port=0))
    server.offer("echo", Offer("echo", (), lambda _: Echoes()))
    print(await server.start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(_serve())
    else:
        main(ROW, measured)
