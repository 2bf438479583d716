"""Many adapters: sixteen LoRA adapters trained in turn through the broker, against one that sees the same tokens.

Each call is a small one, of 8 sequences of 24 tokens, followed by a step of the optimizer; calls are issued without
waiting for the one before, as the engine allows. The one adapter gets the same calls, and the ratio is to these. Told
beside it is how it fares with the same tokens in a single call: what small calls cost, which is no cost of adapters.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import models
from benchmarks.figures import ratio, spread
from benchmarks.harness import Outcome, Row, Settings, main
from benchmarks.machine import Floor
from benchmarks.models import FIRST_ID, SIZES
from fettle.broker import Broker, BrokerPolicy
from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec
from fettle.engine.local import LocalBackend
from fettle.types import Datum, datum

ROW = Row(
    name="adapters",
    work="16 LoRA adapters trained in turn through the broker, calls of 8 x 24 tokens, 17 M",
    peer="one adapter, the same calls (all its tokens in one call: in the notes)",
    target=0.9,
    unit="of its throughput",
)
ADAPTERS, SEQUENCES, LENGTH = 16, 8, 24


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    return asyncio.run(_measured(settings))


async def _measured(settings: Settings) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        chosen = LocalEngine(device=settings.device, threads=settings.threads)
        broker = Broker(LocalBackend(chosen, checkpoints=Path(folder)))
        spec = PolicySpec(model=models.folder("small"), lora=LoRA(), precision=settings.precision)
        policies = [await broker.create_policy(spec) for _ in range(ADAPTERS)]
        calls = [_data(index) for index in range(ADAPTERS)]
        whole = [each for call in calls for each in call]
        sides: dict[str, Callable[[], Awaitable[Any]]] = {
            "ours": lambda: _each(policies, calls),
            "same_calls": lambda: _each([policies[0]] * ADAPTERS, calls),
            "one_call": lambda: _learned(policies[0], whole),
        }
        found = await _interleaved(sides, settings.repetitions)
        broker.close()
    tokens = ADAPTERS * SEQUENCES * LENGTH
    rates = {name: [tokens / seconds for seconds in times] for name, times in found.items()}
    ratios = {name: ratio(rates["ours"], rates[name]) for name in ("same_calls", "one_call")}
    return Outcome(
        ratios["same_calls"],
        {"tokens_per_second": spread(rates["ours"])},
        {
            "tokens_per_second": spread(rates["same_calls"]),
            "further_figures": {"all_tokens_in_one_call": {"tokens_per_second": spread(rates["one_call"])}},
        },
        notes=[
            f"Beside one adapter that makes the same small calls, sixteen have {ratios['same_calls']:.3g} of its "
            f"throughput; beside one that is given all tokens in a single call, {ratios['one_call']:.3g}. The second "
            "is the cost of small calls, which give threads little to do at a time: one adapter pays it as sixteen "
            "do, and it is no cost of adapters."
        ],
    )


async def _interleaved(sides: dict[str, Callable[[], Awaitable[Any]]], repetitions: int) -> dict[str, list[float]]:
    """As :func:`benchmarks.harness.interleaved`, for calls that are awaited."""
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(-1, repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            await sides[name]()
            if repetition >= 0:
                found[name].append(time.perf_counter() - started)
    return found


async def _each(policies: Sequence[BrokerPolicy], calls: Sequence[Sequence[Datum]]) -> None:
    await asyncio.gather(*(_learned(policy, data) for policy, data in zip(policies, calls, strict=True)))


def _learned(policy: BrokerPolicy, data: Sequence[Datum]) -> Awaitable[Any]:
    """Forward, backward and a step."""
    return asyncio.gather(policy.forward_backward(data, CausalLM()), policy.optim_step(AdamW(learning_rate=1e-6)))


def _data(index: int) -> list[Datum]:
    rng = Random(f"adapter/{index}")
    rows = [[rng.randrange(FIRST_ID, SIZES["small"].vocabulary) for _ in range(LENGTH)] for _ in range(SEQUENCES)]
    return [datum(row, [0.0] + [1.0] * (LENGTH - 1)) for row in rows]


if __name__ == "__main__":
    main(ROW, measured)
