"""Policies in a process with 24 MiB to spare: calls that need more, then one that does not. Run by ``test_step``."""

import resource
import sys
from pathlib import Path

import psutil
import torch

from fettle.config import AdamW, CausalLM, LocalEngine, PolicySpec
from fettle.engine.local import LocalBackend, reading
from fettle.errors import EngineError
from fettle.types import datum

SMALL = [datum([5, 6, 7, 8], [0, 1, 1, 1])]
LARGE = [datum([5 + i, *range(5, 105)], [0, *[1] * 100]) for i in range(20)]


def short(layout: str) -> None:
    """What is said of it, a line a call."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    backend = LocalBackend(LocalEngine(layout=layout), checkpoints=Path())
    backend.create_policy("a", PolicySpec(model=sys.argv[1]))
    backend.forward_backward("a", SMALL, CausalLM())
    held = backend._policies["a"].model.parameters
    gradients = {name: parameter.grad.clone() for name, parameter in held.items()}
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (24 << 20), resource.RLIM_INFINITY))
    try:
        backend.forward_backward("a", LARGE, CausalLM())
    except EngineError as error:
        sys.stdout.write(f"{error}\n")
    try:
        with torch.no_grad():
            reading.logprobs(
                backend._policies["a"].model, [row.tokens.tolist() for row in LARGE], temperature=1.0, budget=16384
            )
    except EngineError as error:
        sys.stdout.write(f"{error}\n")
    assert all(torch.equal(parameter.grad, gradients[name]) for name, parameter in held.items())
    assert backend.forward_backward("a", SMALL, CausalLM()).num_tokens == 3
    assert backend.optim_step("a", AdamW()).policy_version == 1
    sys.stdout.write("and goes on\n")


torch.set_num_threads(1)
for layout in ("packed", "padded"):
    short(layout)
