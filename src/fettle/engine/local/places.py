"""What a model says at each place of given sequences: the likeliest tokens, given ones, and some that are drawn."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.engine.base import ReadRequest
from fettle.engine.local.drawing import inverse_cdf
from fettle.engine.local.logprobs import chunks
from fettle.engine.local.model import LanguageModel
from fettle.engine.local.reading import batches
from fettle.errors import ConfigError, LossInputError
from fettle.randomness import key
from fettle.types import PromptReading

NOTHING = -1
"""In ``targets``, where no token is asked about."""


def read(model: LanguageModel, requests: Sequence[ReadRequest], *, budget: int) -> list[PromptReading]:
    """For each request its reading. Logits are made in chunks, each of which is read and let go.

    Raises:
        ConfigError: more of the likeliest tokens are asked for than there are, or a number is below 0.
        LossInputError: a sequence is empty, or targets are no token ids or not of its length.
        EngineError: there is not enough memory.
    """
    for index, request in enumerate(requests):
        _check(request, f"reading {index}", model)
    found = [_blank(request) for request in requests]
    for batch in batches(model, [request.tokens for request in requests], budget, last=False):
        with batch.laid.enough_memory():
            logits_at = model.logits(batch.laid)
            for row, index in enumerate(batch.indices):
                length = len(requests[index].tokens)
                for chunk in chunks(length - 1, model.vocabulary):
                    before = torch.arange(chunk.start, chunk.stop, device=model.device)
                    logits = logits_at(batch.laid.places(torch.full_like(before, row), before))
                    _fill(found[index], requests[index], slice(chunk.start + 1, chunk.stop + 1), logits)
    return found


def _fill(found: PromptReading, request: ReadRequest, places: slice, logits: Tensor) -> None:
    """Read the ``logits`` [n, V] of what may stand at ``places``."""
    total = logits.logsumexp(-1, keepdim=True)

    def logprobs(tokens: Tensor) -> NDArray[np.float32]:
        """Of ``tokens`` [n, k]."""
        values: NDArray[np.float32] = (logits.gather(1, tokens) - total).cpu().numpy()
        return values

    own = torch.tensor(request.tokens[places], device=logits.device)
    found.logprobs[places] = logprobs(own[:, None])[:, 0]
    if request.top:
        likeliest = logits.topk(request.top).indices
        found.top_tokens[places], found.top_logprobs[places] = likeliest.cpu().numpy(), logprobs(likeliest)
    if request.targets is not None:
        asked = torch.from_numpy(request.targets[places].astype(np.int64)).to(logits.device)
        said = logprobs(asked.clamp(min=0))
        found.target_logprobs[places] = np.where(request.targets[places] == NOTHING, 0.0, said)
    if request.draws:
        drawn = _drawn(logits, request, places)
        found.drawn_tokens[places], found.drawn_logprobs[places] = drawn.cpu().numpy(), logprobs(drawn)


def _drawn(logits: Tensor, request: ReadRequest, places: slice) -> Tensor:
    """Tokens [n, draws], by a generator for each place."""
    if not request.temperature:
        return logits.argmax(-1, keepdim=True).expand(-1, request.draws)
    # The draws need float64, which Apple's GPUs lack.
    probs = (logits / request.temperature).softmax(-1).to("cpu" if logits.device.type == "mps" else logits.device)
    keys = [key(request.seed, "read", place) for place in range(places.start, places.stop)]
    numbers = np.stack([np.random.Generator(np.random.Philox(key=each)).random(request.draws) for each in keys])
    uniform = torch.from_numpy(numbers).to(probs.device)  # [n, draws]
    return torch.stack([inverse_cdf(probs, column) for column in uniform.t()], dim=1).to(logits.device)


def _blank(request: ReadRequest) -> PromptReading:
    length = len(request.tokens)
    asked = 0 if request.targets is None else request.targets.shape[1]

    def unknown(*shape: int) -> NDArray[np.float32]:
        return np.full((length, *shape), np.nan, dtype=np.float32)

    return PromptReading(
        logprobs=unknown(),
        top_tokens=np.zeros((length, request.top), dtype=np.int32),
        top_logprobs=unknown(request.top),
        target_logprobs=np.zeros((length, asked), dtype=np.float32),
        drawn_tokens=np.zeros((length, request.draws), dtype=np.int32),
        drawn_logprobs=unknown(request.draws),
    )


def _check(request: ReadRequest, name: str, model: LanguageModel) -> None:
    if not 0 <= request.top <= model.vocabulary:
        raise ConfigError(
            f"{name} asks for the {request.top} likeliest tokens: from 0 to all {model.vocabulary} can be told"
        )
    if request.draws < 0 or not request.temperature >= 0:
        raise ConfigError(
            f"{name} asks for {request.draws} draws at temperature {request.temperature}: neither may be below 0"
        )
    targets = request.targets
    if targets is None:
        return
    if targets.ndim != 2 or len(targets) != len(request.tokens) or targets.dtype.kind not in "iu":
        raise LossInputError(
            f"the targets of {name} have shape {list(targets.shape)} and type {targets.dtype} beside "
            f"{len(request.tokens)} tokens: a row of token ids for each is needed"
        )
    if targets.size:
        model.check_tokens(f"the targets of {name}", max(int(targets.min()), 0), int(targets.max()), 0)
        if targets.min() < NOTHING:
            raise LossInputError(f"the targets of {name} hold {targets.min()}: {NOTHING} asks nothing")
