"""Results of operations as the Tinker API tells them, in protobuf and in JSON."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.service.faces.tinker import tensors
from fettle.service.faces.tinker import tinker_wire_pb2 as wire
from fettle.types import Completion, Floats, ForwardResult, Ints, OptimResult, PromptReading

NOTHING = -99999.0
"""The log-probability of an empty cell among the likeliest tokens."""

OUTPUT_TYPE = "TorchLossReturn"


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a sample request wants to be told of its prompt."""

    logprobs: bool = False
    top: int = 0
    last: int | None = None
    """Only of so many of its last tokens."""
    targets: tensors.Array | tensors.Sparse | None = None
    """[len(prompt) - 1, K], from the prompt's second token on; -1, or a cell that is not listed, asks nothing."""
    draws: int = 0

    def __bool__(self) -> bool:
        return self.logprobs or self.top > 0 or self.targets is not None or self.draws > 0


# ---- forward and forward_backward


def forward_output(result: ForwardResult, widths: Sequence[int]) -> bytes:
    """ForwardBackwardOutput: a record for each run of data whose targets are alike in shape."""
    output = wire.ForwardBackwardOutput(loss_fn_output_type=OUTPUT_TYPE)
    rows = zip(widths, _logprobs(result, widths), strict=True)
    for width, group in itertools.groupby(rows, key=lambda row: row[0]):
        logprobs = [np.ascontiguousarray(values, "<f4") for _, values in group]
        record = output.loss_fn_outputs.add(num_datums=len(logprobs))
        field = record.fields["logprobs"]
        field.data = b"".join(values.tobytes() for values in logprobs)
        field.offsets = np.cumsum([0, *(values.nbytes for values in logprobs)]).astype("<i8").tobytes()
        field.dtype = wire.DTYPE_FLOAT32
        field.trailing_shape.extend([width] if width else [])
    output.metrics.update(_metrics(result))
    return output.SerializeToString()


def forward_json(result: ForwardResult, widths: Sequence[int]) -> dict[str, Any]:
    """The same for clients that read no protobuf."""
    outputs = [{"logprobs": tensors.as_json(values.astype(np.float32))} for values in _logprobs(result, widths)]
    return {"loss_fn_output_type": OUTPUT_TYPE, "loss_fn_outputs": outputs, "metrics": _metrics(result)}


def optim_json(result: OptimResult) -> dict[str, Any]:
    """OptimStepResponse; a step that was skipped, since its gradients were not finite, has no norm to tell."""
    told = {"skipped": float(result.skipped), "policy_version": float(result.policy_version)}
    norm = {"grad_norm": result.grad_norm} if math.isfinite(result.grad_norm) else {}
    return {"metrics": norm | told}


def _logprobs(result: ForwardResult, widths: Sequence[int]) -> list[Floats]:
    """For each datum that was sent, [N] or [N, K]: the first place of ours predicts nothing."""
    ours = iter(result.logprobs)
    return [np.stack([next(ours)[1:] for _ in range(width)], axis=1) if width else next(ours)[1:] for width in widths]


def _metrics(result: ForwardResult) -> dict[str, float]:
    """Sums add up over the requests that one call of a client was parted into, and so do the greatest and the least."""
    told = {"loss:sum": result.loss, "tokens:sum": float(result.num_tokens)}
    for name, value in result.metrics.items():
        for ending in ("_max", "_min"):
            if name.endswith(ending):
                told[f"{name.removesuffix(ending)}:{ending[1:]}"] = value
    return told


# ---- samples


def sample_output(drawn: Sequence[Completion], reading: PromptReading | None, asked: Asked) -> bytes:
    """SampleResponse."""
    response = wire.SampleResponse()
    for completion in drawn:
        sequence = response.sequences.add(
            stop_reason=wire.STOP_REASON_STOP if completion.stop_reason == "stop" else wire.STOP_REASON_LENGTH,
            tokens=np.array(completion.tokens, "<i4").tobytes(),
            logprobs=np.array(completion.logprobs, "<f4").tobytes(),
        )
        if completion.top is not None:
            _put_top(sequence.topk_sampled_logprobs, *_top_arrays(completion.top))
    if reading is None:
        return response.SerializeToString()
    if asked.logprobs:
        response.prompt_logprobs = _only_last(reading.logprobs, asked.last).astype("<f4").tobytes()
    if asked.top:
        _put_top(response.topk_prompt_logprobs, *_prompt_top(reading, asked))
    if asked.targets is not None:
        tensors.put(response.target_prompt_logprobs, target_logprobs(reading, asked.targets))
    if asked.draws:
        tensors.put(response.prompt_alt_tokens.tokens, np.ascontiguousarray(reading.drawn_tokens[1:], "<i4"))
        tensors.put(response.prompt_alt_tokens.logprobs, np.ascontiguousarray(reading.drawn_logprobs[1:], "<f4"))
    return response.SerializeToString()


def sample_json(drawn: Sequence[Completion], reading: PromptReading | None, asked: Asked) -> dict[str, Any]:
    """The same for clients that read no protobuf."""
    told: dict[str, Any] = {
        "type": "sample",
        "sequences": [
            {"stop_reason": one.stop_reason, "tokens": one.tokens, "logprobs": one.logprobs} for one in drawn
        ],
    }
    if reading is not None and asked.logprobs:
        told["prompt_logprobs"] = _or_none(_only_last(reading.logprobs, asked.last))
    if reading is not None and asked.top:
        ids, logprobs = _prompt_top(reading, asked)
        told["topk_prompt_logprobs"] = [
            None if row[0] == NOTHING else list(zip(map(int, own), map(float, row), strict=True))
            for own, row in zip(ids, logprobs, strict=True)
        ]
    return told


def wanted_targets(targets: tensors.Array | tensors.Sparse, length: int) -> Ints:
    """What a reading [length, K] is to be asked, -1 where nothing is."""
    if isinstance(targets, tensors.Sparse):
        widest = int(np.diff(targets.crow).max(initial=0))
        asked = np.full((length, max(widest, 1)), -1, np.int32)
        asked[targets.rows + 1, _place_in_row(targets)] = targets.values
        return asked
    return np.concatenate([np.full((1, targets.shape[1]), -1), targets]).astype(np.int32)


def target_logprobs(reading: PromptReading, targets: tensors.Array | tensors.Sparse) -> tensors.Array | tensors.Sparse:
    """What a reading says of them, in the layout in which they were asked."""
    if isinstance(targets, tensors.Sparse):
        values = reading.target_logprobs[targets.rows + 1, _place_in_row(targets)]
        values = np.where(targets.values < 0, 0, values).astype("<f4")
        return tensors.Sparse(values, targets.crow, targets.col, targets.shape)
    return np.where(targets < 0, 0, reading.target_logprobs[1:]).astype("<f4")


def _place_in_row(targets: tensors.Sparse) -> Ints:
    """Which of its row's listed cells each one is."""
    return (np.arange(len(targets.values)) - targets.crow[targets.rows]).astype(np.int32)


def _only_last(logprobs: Floats, last: int | None) -> Floats:
    found = logprobs.copy()
    if last is not None:
        found[: len(found) - last] = np.nan
    return found


def _prompt_top(reading: PromptReading, asked: Asked) -> tuple[Ints, Floats]:
    """The likeliest tokens [T, k] and their log-probabilities, empty where none are wanted or can be."""
    empty = np.isnan(_only_last(reading.logprobs, asked.last))[:, None]
    ids = np.where(empty, 0, reading.top_tokens).astype(np.int32)
    return ids, np.where(empty, NOTHING, reading.top_logprobs).astype(np.float32)


def _top_arrays(top: Sequence[Sequence[tuple[int, float]]]) -> tuple[Ints, Floats]:
    k = max(map(len, top), default=0)
    ids, logprobs = np.zeros((len(top), k), np.int32), np.full((len(top), k), NOTHING, np.float32)
    for i, row in enumerate(top):
        ids[i, : len(row)] = [token for token, _ in row]
        logprobs[i, : len(row)] = [logprob for _, logprob in row]
    return ids, logprobs


def _put_top(message: wire.TopkLogprobs, ids: Ints, logprobs: Floats) -> None:
    message.length, message.k = ids.shape
    message.token_ids, message.logprobs = ids.astype("<i4").tobytes(), logprobs.astype("<f4").tobytes()


def _or_none(values: Floats) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
