"""What is drawn and what is trained on, and the engine that both are asked of."""

import functools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import models
from benchmarks.harness import Settings
from benchmarks.models import FIRST_ID, Size
from fettle.config import LocalEngine, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.types import Datum, datum

POLICY = "measured"
PROMPTS, GROUP, MAX_TOKENS = 16, 8, 64


@dataclass(frozen=True, slots=True)
class Workload:
    """P prompts, each answered by a group of completions; tokens are drawn at random."""

    model: str
    size: Size
    prompts: Sequence[list[int]]
    group: int
    max_tokens: int

    @property
    def batch(self) -> list[list[int]]:
        """Each prompt as often as it is answered."""
        return [prompt for prompt in self.prompts for _ in range(self.group)]


def workload(settings: Settings, *, long: bool = False, size: str = "small") -> Workload:
    """16 prompts of 16 to 128 tokens, or of 512 (on a GPU 64 of 512), answered by 8 completions of at most 64 (512)."""
    if settings.device == "cuda":
        count, low, high, most, size = (8 if settings.quick else 64), 512, 512, 512, "large"
    else:
        count, most = (4 if settings.quick else PROMPTS), MAX_TOKENS
        low, high = (512, 512) if long else (16, 128)
    shape, rng = models.SIZES[size], Random("prompts")
    prompts = [[rng.randrange(FIRST_ID, shape.vocabulary) for _ in range(rng.randint(low, high))] for _ in range(count)]
    return Workload(models.folder(size), shape, prompts, GROUP, most)


def completions(work: Workload, *, fixed: bool = False) -> list[list[int]]:
    """For each prompt of the batch random tokens: of a length that ends with the models' probability, or the most."""
    rng = Random("completions")
    found = []
    for _ in work.batch:
        length = 1
        while length < work.max_tokens and (fixed or rng.random() >= models.ENDS):
            length += 1
        found.append([rng.randrange(FIRST_ID, work.size.vocabulary) for _ in range(length)])
    return found


def training_data(work: Workload, replies: Sequence[list[int]]) -> list[Datum]:
    """Data for a policy-gradient loss: the mean over all tokens of the batch; advantages that differ in a group."""
    rng, total = Random("advantages"), sum(map(len, replies))
    data = []
    for index, (prompt, reply) in enumerate(zip(work.batch, replies, strict=True)):
        mask = [0.0] * len(prompt) + [1.0] * len(reply)
        credit = rng.gauss(0, 1)
        data.append(
            datum(
                [*prompt, *reply],
                mask,
                group=str(index // work.group),
                advantages=[credit * each for each in mask],
                weights=[each / total for each in mask],
                sampling_logprobs=[0.0] * len(mask),
            )
        )
    return data


def on_policy(backend: LocalBackend, data: Sequence[Datum]) -> list[Datum]:
    """The data as the policy itself would have drawn it: every ratio is one."""
    weights, _ = backend.pin(POLICY)
    found = backend.logprobs(weights, [each.tokens.tolist() for each in data], temperature=1.0)
    backend.unpin(weights)
    return [
        replace(each, streams={**each.streams, "sampling_logprobs": said * each.loss_mask})
        for each, said in zip(data, found, strict=True)
    ]


@contextmanager
def engine(settings: Settings, model: str, **spec: Any) -> Iterator[LocalBackend]:
    """A backend with one policy in it, of all the weights of a model unless ``spec`` says otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        backend = LocalBackend(LocalEngine(device=settings.device, threads=settings.threads), checkpoints=Path(folder))
        backend.create_policy(POLICY, PolicySpec(**{"model": model, "precision": settings.precision, **spec}))
        yield backend
        backend.close_policy(POLICY)


def drawn(backend: LocalBackend, work: Workload, *, seed: int, policy: str = POLICY) -> list[int]:
    """The lengths of the completions that the engine draws for a workload."""
    weights, _ = backend.pin(policy)
    requests = [
        SampleRequest(prompt, work.group, SamplingParams(max_tokens=work.max_tokens, seed=seed * 1000 + index))
        for index, prompt in enumerate(work.prompts)
    ]
    found = backend.sample([weights] * len(requests), requests)
    backend.unpin(weights)
    return [len(completion.tokens) for group in found for completion in group]


@functools.cache
def peer_model(folder: str, device: str, dtype: str) -> Any:
    """The model as transformers loads it."""
    import torch
    from transformers import AutoModelForCausalLM

    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=kind).to(device).eval()
