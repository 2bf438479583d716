"""What an engine does for a policy from its making to its end, in few steps, with everything that comes of it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fettle.config import PPO, AdamW, CausalLM, LocalEngine, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.types import Completion, Datum, datum

ADAM = AdamW(learning_rate=0.01)
TAUGHT = [
    datum([5, 9, 41, 7, 30, 12], [0, 1, 1, 1, 1, 1], weights=[1.0] * 6),
    datum([5, 9, 41, 8, 3], [0, 1, 1, 1, 1], weights=[1.0] * 5),
]
FIXED = [[5, 9, 41, 7, 30, 12], list(range(4, 24))]
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.5, "top_k": 3},
    {"top_p": 0.8, "untempered_logprobs": True},
    {"temperature": 0.0, "top_logprobs": 2},
)


class Course(NamedTuple):
    losses: list[float]
    """Of supervised steps, then of a step of PPO."""
    drawn: list[list[int]]
    apart: float
    """The most by which log-probabilities of what was drawn plainly are from what the trainer finds for it."""
    fixed: np.ndarray
    """Log-probabilities of given tokens, after all that."""
    gone_on: np.ndarray
    """The same, of the policy as it was saved, read back and trained once more."""
    straight: np.ndarray
    """The same, of the policy that was never read back."""


def course(device: str, spec: PolicySpec, folder: Path, **settings: Any) -> Course:
    """On ``device``: learn, draw, learn from what was drawn, take a step back, save, go on."""
    backend = LocalBackend(LocalEngine(device=device, threads=1, **settings), checkpoints=folder)
    backend.create_policy("p", spec)
    losses = [learned(backend, "p") for _ in range(2)]
    pin, _ = backend.pin("p")
    requests = [
        SampleRequest([3 + i, 8], 2, SamplingParams(max_tokens=6, seed=i, end_tokens=False, **way))
        for i, way in enumerate(WAYS)
    ]
    drawn = backend.sample([pin] * len(requests), requests)
    own = backend.logprobs(pin, [[3, 8, *each.tokens] for each in drawn[0]], temperature=1.0)
    apart = max(float(np.abs(found[2:] - each.logprobs).max()) for found, each in zip(own, drawn[0], strict=True))
    backend.unpin(pin)
    losses.append(backend.forward_backward("p", [replied(each, i) for i, each in enumerate(drawn[0])], PPO()).loss)
    backend.optim_step("p", ADAM, undoable=True)
    backend.undo("p")
    backend.snapshot("p", folder / "snapshot")
    learned(backend, "p")
    straight = fixed(backend, "p")
    backend.close_policy("p")
    backend.revive("p", folder / "snapshot")
    after = fixed(backend, "p")
    learned(backend, "p")
    gone_on = fixed(backend, "p")
    backend.close_policy("p")
    return Course(losses, [c.tokens for cs in drawn for c in cs], apart, after, gone_on, straight)


def learned(backend: LocalBackend, policy: str) -> float:
    """The loss of a step."""
    found = backend.forward_backward(policy, TAUGHT, CausalLM()).loss
    backend.optim_step(policy, ADAM)
    return found


def fixed(backend: LocalBackend, policy: str) -> np.ndarray:
    """Log-probabilities of ``FIXED``, one after the other."""
    data = [datum(tokens, [0] + [1] * (len(tokens) - 1)) for tokens in FIXED]
    return np.concatenate(backend.forward(policy, data, CausalLM()).logprobs)


def replied(drawn: Completion, index: int) -> Datum:
    """What was drawn, with a made-up advantage."""
    reply = len(drawn.tokens)
    return datum(
        [3, 8, *drawn.tokens],
        [0, 0] + [1] * reply,
        sampling_logprobs=[0.0, 0.0, *drawn.logprobs],
        advantages=[0.0, 0.0] + [(-1.0) ** index] * reply,
    )
