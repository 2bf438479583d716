"""One tenant's training program of the crash test: ``python -m benchmarks.crash_client URL KEY RUN FOLDER``.

It may be killed at any moment and started again, and so may the server. What it knows it writes into ``FOLDER/told``, a
line a fact: ``taken SEQ`` once the service has acknowledged an operation, ``done SEQ WHAT`` once it has said what that
came to, ``draw KEY COUNT`` once a draw was answered, and ``wrong WHAT`` for anything that should never be. It goes on
until the file ``FOLDER/last`` says how many operations there are.
"""

import asyncio
import hashlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from fettle.calls import Call, ForwardBackward, OptimStep, call_tree
from fettle.client.transport import Transport, read
from fettle.config import AdamW, CausalLM
from fettle.errors import BusyError, FettleError, StorageError, UnreachableError
from fettle.frames import Tree, packed, result_tree
from fettle.types import datum

WINDOW = 8
"""Operations under way at once."""
SEQUENCES, TOKENS = 4, 32
FIRST_ID, VOCABULARY = 5, 500
STEP = 3
"""Operations of one step: two gradients and the step itself."""
DRAW_EVERY = 10 * STEP
SAMPLES = 2
PAUSE = 0.05

Result = TypeVar("Result")


def call_at(tenant: str, seq: int) -> Call:
    """What the program's operation of that number is, whenever it is asked."""
    if seq % STEP == STEP - 1:
        return OptimStep(AdamW(learning_rate=1e-3))
    rng = Random(f"{tenant}/{seq}")
    mask = [0.0] + [1.0] * (TOKENS - 1)
    return ForwardBackward(
        [datum([rng.randrange(FIRST_ID, VOCABULARY) for _ in range(TOKENS)], mask) for _ in range(SEQUENCES)],
        CausalLM(),
    )


class Program:
    """The program, as far as it has come."""

    def __init__(self, url: str, key: str, run_id: str, folder: Path) -> None:
        self._transport = Transport(url, key, patience=0.0)
        self._run = run_id
        self._folder = folder
        self._tenant = folder.name
        self._told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._places = asyncio.Semaphore(WINDOW)

    async def run(self, sampler: str) -> None:
        """Go on from where the service is, and ask again for what was acknowledged and is not known to be done."""
        run = await self._sure(lambda: self._transport.get(f"/v1/runs/{self._run}"))
        facts = [line.split() for line in (self._folder / "told").read_text().splitlines()]
        taken, done = ({int(fact[1]) for fact in facts if fact[0] == word} for word in ("taken", "done"))
        if taken and run["next_seq"] <= max(taken):
            self._tell(f"wrong {max(taken)} was acknowledged and the service is at {run['next_seq']}")
        tasks = [asyncio.create_task(self._answered(seq)) for seq in sorted(set(range(run["next_seq"])) - done)]
        seq = run["next_seq"]
        while seq < self._last():
            await self._places.acquire()
            tasks.append(asyncio.create_task(self._carried_out(run["incarnation"], seq)))
            if seq % DRAW_EVERY == 0:
                tasks.append(asyncio.create_task(self._drawn(sampler, f"{self._run}-{seq}")))
            seq += 1
        await asyncio.gather(*tasks)

    def _last(self) -> int:
        last = self._folder / "last"
        return int(last.read_text()) if last.exists() else sys.maxsize

    async def _carried_out(self, incarnation: int, seq: int) -> None:
        said = {"incarnation": incarnation, "seq": seq, "call": call_tree(call_at(self._tenant, seq))}
        try:
            await self._sure(lambda: self._transport.post(f"/v1/runs/{self._run}/operations", said))
            self._tell(f"taken {seq}")
            await self._answered(seq, incarnation)
        finally:
            self._places.release()

    async def _answered(self, seq: int, incarnation: int = 0) -> None:
        promise = f"{self._run}.{incarnation}.{seq}"
        told = {"status": "pending"}
        while told["status"] == "pending":
            told = await self._sure(lambda: self._transport.get(f"/v1/futures/{promise}", wait=10.0))
        if told["status"] == "failed":
            self._tell(f"wrong {seq} failed: {told['error']}")
        else:
            self._tell(f"done {seq} {told_result(told['result'])}")

    async def _drawn(self, sampler: str, key: str) -> None:
        request = {"prompt": [5, 6, 7], "n": SAMPLES, "params": {"max_tokens": 8, "seed": 1}}
        said = {"key": key, "requests": [request]}
        drawn = await self._sure(lambda: self._transport.post(f"/v1/samplers/{sampler}/sample", said))
        told = {"status": "pending"}
        while told["status"] == "pending":
            told = await self._sure(lambda: self._transport.get(f"/v1/futures/{drawn['id']}", wait=10.0))
        self._tell(f"draw {key} {len(read(told['result']))}")

    async def _sure(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """The same request until it is answered; what is wrong with it is told, and ends the program."""
        while True:
            try:
                return await ask()
            except (UnreachableError, BusyError, StorageError):
                await asyncio.sleep(PAUSE)
            except FettleError as error:
                self._tell(f"wrong {type(error).__name__}: {error.message}")
                raise

    def _tell(self, fact: str) -> None:
        # One write: a process that is killed leaves a whole line or none.
        os.write(self._told, f"{fact}\n".encode())


def told_result(tree: Tree) -> str:
    """A hash of what an operation came to, but for how long it took."""
    plain: dict[str, Any] = {**result_tree(read(tree))}
    plain.pop("seconds", None)
    return hashlib.sha256(packed(plain)).hexdigest()[:16]


def main(url: str, key: str, run_id: str, sampler: str, folder: str) -> None:
    """Run the program to its end."""
    asyncio.run(Program(url, key, run_id, Path(folder)).run(sampler))


if __name__ == "__main__":
    main(*sys.argv[1:])
