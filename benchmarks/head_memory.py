"""The head: log-probabilities with a gradient, 2 048 tokens, vocabulary 151 936, against the full log-softmax.

The head is frozen, as beside adapters. Extra memory is the peak over what was held once the inputs were there, in fresh
processes; times are taken in turn in one.
"""

import statistics
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from benchmarks.figures import spread
from benchmarks.harness import Outcome, Row, Settings, in_fresh_process, in_turn, interleaved, main, seconds_of
from benchmarks.machine import Floor, held, peak_of
from fettle.engine.local.logprobs import token_logprobs

ROW = Row(
    name="head_memory",
    work="extra peak memory of log-probabilities with a gradient: 2 048 tokens, vocabulary 151 936, frozen head",
    peer="full log-softmax and gather",
    target=0.2,
    better="lower",
    unit="of its memory",
)
TOKENS, QUICK_TOKENS, VOCABULARY = 2048, 256, 151_936
WIDTHS = (384, 1024)
SLOWER = 1.1
"""Most time, relative to the peer's."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row: the worse of two widths."""
    by_width = {width: _one(settings, floor, width) for width in WIDTHS}
    sides = {side: {f"hidden_{width}": found[side] for width, found in by_width.items()} for side in ("ours", "peer")}
    memory = [
        found["ours"]["extra_mib"]["median"] / found["peer"]["extra_mib"]["median"] for found in by_width.values()
    ]
    times = {
        f"time at hidden {width} at most {SLOWER}x": found["ours"]["seconds"]["median"]
        <= SLOWER * found["peer"]["seconds"]["median"]
        for width, found in by_width.items()
    }
    return Outcome(max(memory), sides["ours"], sides["peer"], further=times)


def _one(settings: Settings, floor: Floor, width: int) -> dict[str, dict[str, Any]]:
    runs = {
        side: lambda side=side: in_fresh_process("benchmarks.head_memory:extra", settings, side=side, width=width)
        for side in SIDES
    }
    memory = in_turn(runs, 1 if settings.quick else 3)
    inputs = _inputs(settings, width)
    calls = {side: lambda call=call: seconds_of(lambda: call(*inputs), settings.device) for side, call in SIDES.items()}
    times = interleaved(calls, settings.repetitions)
    needed = 4.0 * len(inputs[0]) * width * VOCABULARY  # forward, and the gradient of the hidden states
    return {
        side: {
            "seconds": spread(times[side]),
            "extra_mib": spread([found["extra_mib"] for found in memory[side]]),
            "floor_multiple": statistics.median(times[side]) / floor.seconds(needed, settings.dtype),
        }
        for side in SIDES
    }


def extra(settings: Settings, *, side: str, width: int) -> dict[str, float]:
    """The peak of one call over what was held before it, in MiB."""
    inputs = _inputs(settings, width)
    hidden, weight, targets = inputs
    SIDES[side](hidden[:8], weight, targets[:8])  # whatever is made once
    before = held(settings.device)
    return {"extra_mib": (peak_of(lambda: SIDES[side](*inputs), settings.device) - before) / 2**20}


def _inputs(settings: Settings, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [N, H], the head's weight [V, H], targets [N]."""
    device = settings.device
    random = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if settings.dtype == "bf16" else torch.float32
    count = QUICK_TOKENS if settings.quick else TOKENS
    hidden = torch.randn(count, width, generator=random, device=device).to(dtype)
    weight = (torch.randn(VOCABULARY, width, generator=random, device=device) * 0.02).to(dtype)
    return hidden, weight, torch.randint(VOCABULARY, (count,), generator=random, device=device)


def _chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    hidden = hidden.detach().requires_grad_()
    logprobs, _ = token_logprobs(hidden, weight, None, targets, torch.ones(len(hidden), device=hidden.device))
    torch.autograd.backward(logprobs.mean())


def _full(hidden: Tensor, weight: Tensor, targets: Tensor) -> None:
    hidden = hidden.detach().requires_grad_()
    logprobs = torch.log_softmax((hidden @ weight.T).float(), -1).gather(1, targets[:, None])
    torch.autograd.backward(logprobs.mean())


SIDES: Mapping[str, Callable[[Tensor, Tensor, Tensor], None]] = MappingProxyType({"ours": _chunked, "peer": _full})


if __name__ == "__main__":
    main(ROW, measured)
