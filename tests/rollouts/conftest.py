"""A template over a tiny tokenizer, and a sampler that says what it is told to."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fettle.chat import Template, load_tokenizer
from fettle.config import SamplingParams, TinyModel
from fettle.engine.local.tiny import make_tiny_model
from fettle.types import Completion


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    folder: Path = tmp_path_factory.mktemp("template")
    make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), folder, texts=["What is 1 + 2 ?", "three four five"] * 9)
    return Template(load_tokenizer(str(folder)))


class Scripted:
    """Satisfies ``Sampler``: says the given token sequences in turn, and keeps the prompts it was given."""

    policy_version = 7

    def __init__(self, *replies: Sequence[int], stop_reason="stop") -> None:
        self.replies = list(replies)
        self.prompts: list[list[int]] = []
        self.seeds: list[int] = []
        self.params: list[SamplingParams] = []
        self.stop_reason = stop_reason

    async def sample(self, prompt: Sequence[int], n: int, params: SamplingParams) -> list[Completion]:
        self.prompts.append(list(prompt))
        self.seeds.append(params.seed)
        self.params.append(params)
        tokens = list(self.replies.pop(0) if len(self.replies) > 1 else self.replies[0])
        logprobs = [-0.1 * (i + 1) for i in range(len(tokens))]
        return [Completion(tokens, logprobs, self.stop_reason, self.policy_version)] * n

    async def logprobs(self, tokens: Sequence[int], *, temperature: float = 1.0) -> list[float | None]:
        return [None, *(-1.0 for _ in tokens[1:])]
