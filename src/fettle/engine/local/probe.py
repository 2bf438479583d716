"""Whether a path suits a model: tried out against plain forward passes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local.attention import UnsuitedError
from fettle.engine.local.paths import Path, closed_up
from fettle.engine.local.roster import Roster, roster
from fettle.errors import ModelError

PathKind = Callable[[Roster, int], Path]

REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""How a model's code answers to inputs that it was not written for."""


@torch.no_grad()
def difference(kind: PathKind, model: PreTrainedModel) -> str:
    """How logits on this path differ from plain forward passes, in words; empty where they agree.

    Raises:
        ModelError: the model's logits are not finite, on any path.
    """
    # Structure is what is tested: autocast's rounding would blur it.
    with torch.autocast(model.device.type, enabled=False):
        try:
            found, expected = _logits(kind, model)
        except UnsuitedError as reason:
            return str(reason)
        except REFUSALS as error:
            return f"it fails ({type(error).__name__}: {error})"
    if not torch.isfinite(expected).all():
        raise ModelError(f"the logits of this {type(model).__name__} are not finite: its weights are broken")
    tolerance = 1e-4 if found.dtype == torch.float32 else 5e-2
    found, expected = found.float(), expected.float()
    scale, apart = float(expected.abs().max()), float((found - expected).abs().max())
    return "" if apart <= tolerance * scale else f"its logits differ by {apart:.1e} from those without one"


def _logits(kind: PathKind, model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """What the path gives and what plain passes give, [n, V], on a row and two that share a longer prompt.

    The first row leaves before the others, so that one of them takes its place.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    random = np.random.Generator(np.random.Philox(key=0))
    prompts = [random.integers(vocabulary, size=length).tolist() for length in (2, 4)]
    requests = [
        SampleRequest(prompts[0], n=1, params=SamplingParams(max_tokens=2)),
        SampleRequest(prompts[1], n=2, params=SamplingParams(max_tokens=3)),
    ]
    trial = roster(requests, [0, 0], vocabulary=vocabulary, context=8, token_budget=24, end_token_ids=frozenset())
    path = kind(trial, 24)
    found: list[Tensor] = []
    expected: list[Tensor] = []
    running: list[tuple[int, list[int]]] = []  # rows of the trial, and their tokens
    entered = 0
    while entered < len(trial) or running:
        since = 0
        if room := path.room(entered):
            rows = np.arange(entered, entered + room)
            since, entered = len(running), entered + room
            running += [(row, list(trial.prompts[trial.prompt[row]])) for row in rows.tolist()]
            found.append(path.enter(rows))
        else:
            tokens = random.integers(vocabulary, size=len(running))
            running = [(row, [*text, token]) for (row, text), token in zip(running, tokens.tolist(), strict=True)]
            found.append(path.step(tokens))
        expected += [_plain(model, text) for _, text in running[since:]]
        order = closed_up(np.array([len(text) >= trial.capacity[row] for row, text in running]))
        path.keep(order)
        running = [running[place] for place in order]
    return torch.cat(found), torch.stack(expected)


def _plain(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits
    return logits[0, -1]
