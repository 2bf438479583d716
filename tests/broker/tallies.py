"""A backend whose policies are tallies: each call that changes one is folded into a hash, in order.

So a lost, doubled or swapped operation shows in every later answer, and thousands of operations take a second.
"""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from fettle.config import AdamW, LossConfig, PolicySpec
from fettle.engine.base import Capabilities, Pooling, ReadRequest, SampleRequest
from fettle.errors import CheckpointError, EngineError, LossInputError, ModelError, NotFoundError, StateError
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, PromptReading, Tokens

REFUSED = 666
"""A token that no call may hold."""


def folded(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class TallyBackend:
    """Satisfies ``Backend``."""

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints
        self.policies: dict[str, dict] = {}
        self.pins: dict[str, str] = {}
        self.done: list[str] = []
        """Calls that changed something or were refused, in order."""
        self.open_gate = threading.Event()
        """While it is not set, ``forward`` waits."""
        self.open_gate.set()
        self.at_gate = threading.Event()
        """Set once a ``forward`` has come there."""

    def capabilities(self) -> Capabilities:
        return Capabilities("tally", "cpu", (), (), 1, 0)

    def create_policy(self, policy: str, spec: PolicySpec) -> int:
        if spec.model == "none":
            raise ModelError("there is no model of that name")
        self.policies[policy] = {"tally": folded(spec.seed), "version": 0, "calls": 0, "pins": {}}
        self.done.append(f"create {policy}")
        return 0

    def load_policy(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        saved = json.loads((Path(checkpoint) / "state.json").read_text())
        self.policies[policy] = {**saved, "pins": {}}
        self.done.append(f"load {policy}")
        return saved["version"]

    def forward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        self.at_gate.set()
        self.open_gate.wait(60)
        return self._result(self._policy(policy), data)

    def forward_backward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        held = self._policy(policy)
        if any(REFUSED in datum.tokens for datum in data):
            self.done.append(f"refused {policy}")
            raise LossInputError(f"token {REFUSED} is refused")
        held["tally"] = folded(held["tally"], held["calls"], [d.tokens.tolist() for d in data], loss.type)
        held["calls"] += 1
        self.done.append(f"forward_backward {policy}")
        return self._result(held, data)

    def optim_step(self, policy: str, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        held = self._policy(policy)
        if not held["calls"] and not empty:
            raise StateError("optim_step has no gradient to apply")
        held.update(tally=folded(held["tally"], optimizer.learning_rate), version=held["version"] + 1, calls=0)
        self.done.append(f"optim_step {policy}")
        return OptimResult(held["version"], int(held["tally"], 16) / 16**16)

    def undo(self, policy: str) -> OptimResult:
        raise StateError("there is no step to undo")

    def save(self, policy: str, name: str, *, optimizer: bool) -> "Future[Checkpoint]":
        held, folder = self._policy(policy), self.checkpoints / name
        if folder.exists():
            raise CheckpointError(f"there is a checkpoint {folder} already")
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps(held))
        self.done.append(f"save {policy}")
        saved: Future[Checkpoint] = Future()
        saved.set_result(Checkpoint(name, str(folder), held["version"], held["tally"]))
        return saved

    def restore(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        held, saved = self._policy(policy), json.loads((Path(checkpoint) / "state.json").read_text())
        held.update(tally=saved["tally"], version=held["version"] + 1, calls=0)
        self.done.append(f"restore {policy}")
        return held["version"]

    def snapshot(self, policy: str, folder: Path) -> None:
        scratch = folder.with_name(f".{folder.name}.partial")
        scratch.mkdir(parents=True)
        (scratch / "state.json").write_text(json.dumps(self._policy(policy)))
        scratch.rename(folder)

    def revive(self, policy: str, folder: Path) -> None:
        self.policies[policy] = json.loads((folder / "state.json").read_text())
        self.pins |= self.policies[policy]["pins"]
        self.done.append(f"revive {policy}")

    def close_policy(self, policy: str) -> None:
        for name in self._policy(policy)["pins"]:
            del self.pins[name]
        del self.policies[policy]

    def pin(self, policy: str, name: str | None = None) -> tuple[str, int]:
        held = self._policy(policy)
        assert name is not None
        assert name not in self.pins
        held["pins"][name] = self.pins[name] = held["tally"]
        return name, held["version"]

    def unpin(self, weights: str) -> None:
        self.pins.pop(weights, None)
        for held in self.policies.values():
            held["pins"].pop(weights, None)

    def open(self, weights: str) -> int:
        return 0

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        return [self._completions(self._tally(name), request) for name, request in zip(weights, requests, strict=True)]

    def logprobs(self, weights: str, sequences: Sequence[Tokens], *, temperature: float) -> list[Floats]:
        return [np.zeros(len(tokens), np.float32) for tokens in sequences]

    def scores(self, weights: str, sequences: Sequence[Tokens]) -> list[float]:
        return [0.0 for _ in sequences]

    def read(self, weights: str, requests: Sequence[ReadRequest]) -> list[PromptReading]:
        raise EngineError("a tally cannot read")

    def embed(self, weights: str, sequences: Sequence[Tokens], *, layer: int, pooling: Pooling) -> list[Floats]:
        return [np.zeros(4, np.float32) for _ in sequences]

    def statistics(self) -> Mapping[str, float]:
        return {}

    def _policy(self, policy: str) -> dict:
        if policy not in self.policies:
            raise NotFoundError(f"there is no policy {policy!r} here")
        return self.policies[policy]

    def _tally(self, weights: str) -> str:
        if weights in self.pins:
            return self.pins[weights]
        if not weights.startswith("model"):
            raise NotFoundError(f"nothing is called {weights}")
        return folded(weights)

    def _result(self, held: Mapping[str, object], data: Sequence[Datum]) -> ForwardResult:
        tokens = sum(len(datum.tokens) for datum in data)
        loss = int(folded(held["tally"], tokens), 16) / 16**16
        return ForwardResult(loss, {}, [np.full(len(datum.tokens), loss, np.float32) for datum in data], tokens)

    def _completions(self, tally: str, request: SampleRequest) -> list[Completion]:
        found = []
        for index in range(request.n):
            tokens: list[int] = []
            for place in range(request.params.max_tokens):
                tokens.append(int(folded(tally, list(request.prompt), request.params.seed, index, place), 16) % 500)
                if request.watch is not None and not request.watch(index, tokens[-1], -1.0):
                    break
            found.append(Completion(tokens, [-1.0] * len(tokens), "length", 0))
        return found
