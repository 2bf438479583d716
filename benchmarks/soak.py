"""Hours in minutes: mixed load on the service, and its memory every ten seconds.

Two tenants train, each drawing from pinned weights and saving now and then; a third opens runs, uses and closes them; a
fourth draws from the model; a fifth reads what people read. Memory is the server's resident set. Its growth is that of
a straight line through the second half, over where the line begins: by then caches are full, and what still grows would
grow for ever.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import models
from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.served import SERVED, Service, Tenant
from benchmarks.tables import table
from fettle.client import HTTPEngine
from fettle.config import PPO, AdamW, LoRA, PolicySpec, SamplingParams
from fettle.types import Datum, datum

ROW = Row(
    name="soak",
    work="growth of the server's memory over the second half of a mixed load",
    peer="its memory where that half begins",
    target=0.05,
    better="lower",
    unit="",
)
MINUTES, QUICK_MINUTES = 20, 1
EVERY = 10.0
"""Seconds between two looks at the memory."""
LATEST = 30.0
"""Each kind of work must have been done once more in the last so many seconds."""
SEQUENCES, TOKENS = 8, 64
PROMPT, PROMPTS, SAMPLES, DRAWN = 16, 8, 4, 32
FIRST_ID, VOCABULARY = 5, 500
SAVE_EVERY, DRAW_EVERY = 50, 10
SPEC = PolicySpec(model=SERVED, lora=LoRA(rank=8))


def measured(settings: Settings, floor: Floor, *, minutes: int | None = None) -> Outcome:
    """The row."""
    seconds = 60.0 * (minutes if minutes is not None else (QUICK_MINUTES if settings.quick else MINUTES))
    with tempfile.TemporaryDirectory() as name, ExitStack() as up:
        model = models.folder("tiny", ends=None)
        service = up.enter_context(Service(model, Path(name), threads=settings.threads))
        done, ended, resident = asyncio.run(_under_load(service, seconds))
    mib = [nbytes / 2**20 for nbytes in resident]
    growth = grown(mib[len(mib) // 2 :])
    rows = [[name, str(count)] for name, count in done.items()]
    rows += [["MiB, first / half / last", " / ".join(f"{mib[place]:.0f}" for place in (0, len(mib) // 2, -1))]]
    rows += [["growth of the second half", f"{100 * growth:+.2f} %"]]
    print(table(["", "found"], rows), file=sys.stderr)
    return Outcome(
        growth,
        {"done": done, "resident_mib": mib, "every_seconds": EVERY},
        {},
        further={"all of it went on to the end": all(each > seconds - LATEST for each in ended.values())},
    )


def grown(values: Sequence[float]) -> float:
    """How much a straight line through the values rises from its beginning to its end, over its beginning."""
    places = range(len(values))
    slope, start = statistics.linear_regression(places, values)
    return slope * (len(values) - 1) / start


async def _under_load(service: Service, seconds: float) -> tuple[dict[str, int], dict[str, float], list[int]]:
    """How often each kind of work was done, after how many seconds last, and the bytes that the server held."""
    began = time.monotonic()
    until = began + seconds
    engines: list[HTTPEngine] = []

    def engine(name: str) -> HTTPEngine:
        engines.append(HTTPEngine(service.url, service.tenant(name).key))
        return engines[-1]

    trainers = [Training(engine(name)) for name in ("ada", "ben")]
    passing, drawing = Passing(engine("cy")), Drawing(engine("dee"))
    reading = Reading(service.tenant("eve"))
    loads: dict[str, Callable[[], Awaitable[None]]] = {
        "steps of the first": trainers[0].once,
        "steps of the second": trainers[1].once,
        "runs opened and closed": passing.once,
        "draws from the model": drawing.once,
        "pages read": reading.once,
    }
    done, ended = dict.fromkeys(loads, 0), dict.fromkeys(loads, 0.0)

    async def repeated(name: str) -> None:
        while time.monotonic() < until:
            await loads[name]()
            done[name] += 1
            ended[name] = time.monotonic() - began

    resident: list[int] = []

    async def watched() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(EVERY)
            resident.append(service.server.resident())
            print(f"{resident[-1] / 2**20:.0f} MiB  {done}", file=sys.stderr, flush=True)

    await asyncio.gather(watched(), *map(repeated, loads))
    for each in engines:
        await each.close()
    return done, ended, resident


class Training:
    """Steps of one policy; now and then draws from what it is by then, and a checkpoint."""

    def __init__(self, engine: HTTPEngine) -> None:
        self._engine = engine
        self._policy: Any = None
        self._steps = 0

    async def once(self) -> None:
        """One step, with what belongs to it."""
        if self._policy is None:
            self._policy = await self._engine.create_policy(SPEC)
        self._steps += 1
        await asyncio.gather(
            self._policy.forward_backward(batch(self._steps), PPO()),
            self._policy.optim_step(AdamW(learning_rate=1e-4)),
        )
        if self._steps % DRAW_EVERY == 0:
            await draws(await self._policy.sampler(), self._steps)
        if self._steps % SAVE_EVERY == 0:
            saved = await self._policy.save(f"step-{self._steps}")
            await self._engine.transport.request("DELETE", f"/v1/checkpoints/{saved.path.split('://')[-1]}")


class Passing:
    """Runs that are opened, used for a moment and closed."""

    def __init__(self, engine: HTTPEngine) -> None:
        self._engine = engine
        self._seen = 0

    async def once(self) -> None:
        """One of them."""
        self._seen += 1
        policy = await self._engine.create_policy(SPEC)
        await policy.forward_backward(batch(self._seen), PPO())
        await policy.optim_step(AdamW())
        await draws(await policy.sampler(), self._seen)
        await policy.close()
        self._engine.policies.clear()


class Drawing:
    """Completions of the model itself."""

    def __init__(self, engine: HTTPEngine) -> None:
        self._engine = engine
        self._sampler: Any = None
        self._seen = 0

    async def once(self) -> None:
        """One batch of prompts."""
        if self._sampler is None:
            self._sampler = await self._engine.sampler(SERVED)
        self._seen += 1
        await draws(self._sampler, self._seen)


class Reading:
    """What people and their monitors read."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant

    async def once(self) -> None:
        """A look at everything, then a pause."""
        for path in ("/v1/runs", "/v1/checkpoints", "/v1/usage", "/v1/capabilities", "/v1/models"):
            await asyncio.to_thread(self._tenant.asks, "GET", path)
        await asyncio.sleep(0.5)


async def draws(sampler: Any, seed: int) -> None:
    """Completions of a few prompts, asked for together."""
    rng = Random(f"prompts/{seed}")
    prompts = [[rng.randrange(FIRST_ID, VOCABULARY) for _ in range(PROMPT)] for _ in range(PROMPTS)]
    params = [SamplingParams(max_tokens=DRAWN, seed=PROMPTS * seed + index) for index in range(PROMPTS)]
    await asyncio.gather(*(sampler.sample(prompt, SAMPLES, p) for prompt, p in zip(prompts, params, strict=True)))


def batch(seed: int) -> list[Datum]:
    """Data for a policy-gradient loss."""
    rng = Random(f"batch/{seed}")
    mask = [0.0] * PROMPT + [1.0] * (TOKENS - PROMPT)
    return [
        datum(
            [rng.randrange(FIRST_ID, VOCABULARY) for _ in range(TOKENS)],
            mask,
            advantages=[rng.gauss(0, 1) * each for each in mask],
            sampling_logprobs=[-6.2 * each for each in mask],
        )
        for _ in range(SEQUENCES)
    ]


if __name__ == "__main__":
    main(ROW, measured, minutes=f"how long ({MINUTES})")
