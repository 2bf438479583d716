"""A fixed course of operations, with a rank killed at one of them: what each comes to is the same, to the bit."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fettle.cluster.backend import ClusterBackend
from fettle.config import AdamW, CausalLM, PolicySpec, SamplingParams
from fettle.engine import SampleRequest
from fettle.types import Datum, datum

ADAM = AdamW(learning_rate=0.01)
LENGTHS = (5, 9, 14, 30, 22, 7)


def rows(seed: int) -> list[Datum]:
    """Sequences of several lengths."""
    random = np.random.default_rng(seed)
    return [datum(random.integers(4, 60, size=n).tolist(), [0] + [1] * (n - 1)) for n in LENGTHS]


def course(backend: ClusterBackend, policy: str, spec: PolicySpec) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Operations by name, each of which gives something to compare. Weights are pinned, sampled, saved and undone."""
    pins: list[str] = []
    drawing = SamplingParams(max_tokens=6, seed=3)

    def pinned() -> int:
        name, version = backend.pin(policy)
        pins.append(name)
        return version

    def drawn() -> list[Any]:
        requests = [SampleRequest([5, 6, 7 + i], 2, drawing) for i in range(3)]
        found = backend.sample([pins[-1]] * 3, requests)
        return [(list(each.tokens), list(each.logprobs)) for group in found for each in group]

    def learned(seed: int) -> list[Any]:
        result = backend.forward_backward(policy, rows(seed), CausalLM())
        return [result.loss, result.metrics, [each.tolist() for each in result.logprobs]]

    def stepped(**how: bool) -> list[Any]:
        result = backend.optim_step(policy, ADAM, **how)
        return [result.policy_version, result.grad_norm, result.skipped]

    yield "create", lambda: backend.create_policy(policy, spec)
    for step in range(2):
        yield "forward_backward", partial(learned, 2 * step)
        yield "forward_backward", partial(learned, 2 * step + 1)
        yield "optim_step", stepped
        yield "pin", pinned
        yield "sample", drawn
    yield "forward_backward", lambda: learned(9)
    yield "optim_step", lambda: stepped(undoable=True)
    yield "undo", lambda: backend.undo(policy).policy_version
    yield "save", lambda: backend.save(policy, policy, optimizer=True).result().policy_version
    yield "sample", drawn
    yield "forward", lambda: [each.tolist() for each in backend.forward(policy, rows(7), CausalLM()).logprobs]
    yield "close", lambda: backend.close_policy(policy)


def followed(backend: ClusterBackend, policy: str, spec: PolicySpec) -> list[Any]:
    """What the course comes to where nobody dies."""
    return [work() for _, work in course(backend, policy, spec)]


def killed(
    backend: ClusterBackend, policy: str, spec: PolicySpec, *, at: int, rank: int, after: float
) -> tuple[list[Any], str]:
    """The same, with a rank killed so many seconds after operation ``at`` begins; and which that was."""
    found, name = [], ""
    for place, (operation, work) in enumerate(course(backend, policy, spec)):
        if place != at:
            found.append(work())
            continue
        pid, name = backend.facts()[rank].pid, operation
        if after:
            threading.Timer(after, os.kill, (pid, signal.SIGKILL)).start()
        else:
            os.kill(pid, signal.SIGKILL)
        found.append(work())
    return found, name
