"""Two tiny models of one tokenizer on a real engine, and what they say as plain NumPy arrays."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fettle.broker import Broker
from fettle.broker.columnar import Trainee
from fettle.config import JournalSettings, LocalEngine, PolicySpec, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from tests.broker.processes import SETTINGS, Process


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "policy"
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), folder, texts=["hello there"] * 9)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another model than the policy's, so that divergences are not 0."""
    folder = tmp_path_factory.mktemp("models") / "reference"
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, seed=1), folder, texts=["hello there"] * 9)


@dataclass(frozen=True)
class Said:
    """Of the tokens of every row [B, T]: log-probabilities, and entropies of what they were drawn from."""

    logprobs: np.ndarray
    entropy: np.ndarray


@pytest.fixture(scope="session")
def said() -> Callable[[str, np.ndarray, np.ndarray], Said]:
    """What a model says of padded sequences, in float64, by transformers' own forward pass; 0 where there is none."""

    @torch.no_grad()
    def of(folder: str, ids: np.ndarray, mask: np.ndarray) -> Said:
        module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        logprobs, entropy = np.zeros(ids.shape), np.zeros(ids.shape)
        for row, (tokens, real) in enumerate(zip(ids, mask, strict=True)):
            places = np.flatnonzero(real)
            logits = module(torch.tensor(tokens[places])[None]).logits[0].numpy()
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            logprobs[row, places[1:]] = np.take_along_axis(logs[:-1], tokens[places][1:, None], -1)[:, 0]
            entropy[row, places[1:]] = -(np.exp(logs) * logs).sum(-1)[:-1]
        return Said(logprobs, entropy)

    return of


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    held = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    yield held
    held.close()


@pytest.fixture
def trainee(broker: Broker, model: str) -> Callable[..., Awaitable[Trainee]]:
    async def made(**settings: object) -> Trainee:
        spec = PolicySpec.model_validate({"model": model, "head": "value", **settings})
        return Trainee(broker, await broker.create_policy(spec), spec)

    return made


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Starts a process on the journal that the last one left, which is killed first."""
    running: list[Process] = []

    async def next_one(settings: JournalSettings = SETTINGS) -> Process:
        if running:
            running[-1].killed()
        running.append(await Process(tmp_path, settings).started())
        return running[-1]

    yield next_one
    for process in running[-1:]:
        process.killed()
