"""The training step: forward and backward of a policy gradient on one batch, against TRL's layout of it.

TRL left-pads the prompts of the whole batch, right-pads the completions, and runs micro-batches of 8 whose head is
applied to completion positions only; padded positions are left out of its log-softmax. All weights are trained, and the
loss is the clipped surrogate on both sides. Gradients are compared; memory is that of weights, gradients and whatever
the step needs, in fresh processes.
"""

import gc
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import flops
from benchmarks.figures import ratio, spread
from benchmarks.harness import Outcome, Row, Settings, in_fresh_process, in_turn, interleaved, main, seconds_of, told
from benchmarks.machine import Floor, held, peak_of
from benchmarks.models import PAD_ID
from benchmarks.workload import POLICY, Workload, completions, engine, on_policy, peer_model, training_data, workload
from fettle.config import PPO, AdamW
from fettle.engine.local import LocalBackend
from fettle.types import Datum

ROW = Row(
    name="training_step",
    work="training step: policy gradient on the same 128 sequences, forward and backward, all of 17 M weights",
    peer="TRL's layout: left-padded prompts, right-padded completions, logits_to_keep, micro-batches of 8",
    target=4.5,
)
MICRO_BATCH = 8
CLIP = 0.2
STILL = AdamW(learning_rate=1e-12)
"""Clears the gradients, and moves nothing."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    return stepped(settings, floor, long=False)


def stepped(settings: Settings, floor: Floor, *, long: bool) -> Outcome:
    """Short prompts, or prompts of 512 tokens with completions of 64."""
    work, replies = _batch(settings, long)
    model = peer_model(work.model, settings.device, "fp32")
    with engine(settings, work.model) as backend:
        data = on_policy(backend, training_data(work, replies))
        batch = padded(work, replies, data, settings.device)

        def ours() -> object:
            return backend.forward_backward(POLICY, data, PPO())

        def peer() -> None:
            trained_by_peer(model, batch, settings)

        ours()
        peer()
        apart = furthest(gradients(backend), {name: p.grad for name, p in model.named_parameters()})

        def timed_ours() -> float:
            backend.optim_step(POLICY, STILL)
            return seconds_of(ours, settings.device)

        def timed_peer() -> float:
            model.zero_grad()
            return seconds_of(peer, settings.device)

        found = interleaved({"ours": timed_ours, "peer": timed_peer}, settings.repetitions)
    needed = flops.trained(work.size, [len(each) for each in work.prompts], work.group, [len(each) for each in replies])
    sides = {name: told(times, flops=needed, floor=floor, dtype=settings.dtype) for name, times in found.items()}
    memory = _memory(settings, long)
    for name, side in sides.items():
        side["peak_mib"] = spread([each["peak_mib"] for each in memory[name]])
    leaner = _peak(memory["ours"]) <= _peak(memory["peer"])
    return Outcome(
        ratio(found["peer"], found["ours"]),
        {**sides["ours"], "furthest_gradient": apart},
        sides["peer"],
        further={
            "peak memory no higher": leaner,
            "gradients agree": apart < (1e-4 if settings.dtype == "fp32" else 0.1),
        },
    )


def _batch(settings: Settings, long: bool) -> tuple[Workload, list[list[int]]]:
    work = workload(settings, long=long)
    return work, completions(work, fixed=long or settings.device == "cuda")


def _peak(found: Sequence[Mapping[str, float]]) -> float:
    return statistics.median(each["peak_mib"] for each in found)


def _memory(settings: Settings, long: bool) -> dict[str, list[Any]]:
    sides = {
        name: lambda name=name: in_fresh_process(f"benchmarks.training_step:memory_of_{name}", settings, long=long)
        for name in ("ours", "peer")
    }
    return in_turn(sides, 1 if settings.quick else 3)


def memory_of_ours(settings: Settings, *, long: bool) -> dict[str, float]:
    """The peak over what a process holds before it loads anything, in MiB."""
    work, replies = _batch(settings, long)
    data = training_data(work, replies)
    torch.ones(64, 64, device=settings.device) @ torch.ones(64, 64, device=settings.device)
    before = held(settings.device)
    with engine(settings, work.model) as backend:
        peak = peak_of(lambda: backend.forward_backward(POLICY, data, PPO()), settings.device)
    return {"peak_mib": (peak - before) / 2**20}


def memory_of_peer(settings: Settings, *, long: bool) -> dict[str, float]:
    """The same for TRL's layout."""
    from transformers import AutoModelForCausalLM  # noqa: F401 - its import is no part of the step's memory

    work, replies = _batch(settings, long)
    batch = padded(work, replies, training_data(work, replies), settings.device)
    torch.ones(64, 64, device=settings.device) @ torch.ones(64, 64, device=settings.device)
    gc.collect()
    before = held(settings.device)
    model = peer_model(work.model, settings.device, "fp32")
    peak = peak_of(lambda: trained_by_peer(model, batch, settings), settings.device)
    return {"peak_mib": (peak - before) / 2**20}


def padded(work: Workload, replies: Sequence[list[int]], data: Sequence[Datum], device: str) -> dict[str, Tensor]:
    """The batch as TRL lays it out [B, P + C]; what is said of completions [B, C]."""
    before, after = max(map(len, work.batch)), max(map(len, replies))
    tokens = torch.full((len(replies), before + after), PAD_ID)
    mask, advantages, old = torch.zeros_like(tokens), torch.zeros(len(replies)), torch.zeros(len(replies), after)
    for row, (prompt, reply) in enumerate(zip(work.batch, replies, strict=True)):
        tokens[row, before - len(prompt) : before + len(reply)] = torch.tensor([*prompt, *reply])
        mask[row, before - len(prompt) : before + len(reply)] = 1
        advantages[row] = float(data[row].streams["advantages"][-1])
        old[row, : len(reply)] = torch.from_numpy(data[row].streams["sampling_logprobs"][len(prompt) :])
    found = {"tokens": tokens, "mask": mask, "advantages": advantages, "old": old, "wanted": mask[:, before:]}
    return {name: value.to(device) for name, value in found.items()}


def trained_by_peer(model: Any, batch: Mapping[str, Tensor], settings: Settings) -> None:
    """Forward and backward in TRL's micro-batches."""
    from trl.trainer.utils import selective_log_softmax

    total, keep = batch["wanted"].sum(), batch["wanted"].shape[1]
    for start in range(0, len(batch["tokens"]), MICRO_BATCH):
        part = {name: value[start : start + MICRO_BATCH] for name, value in batch.items()}
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.dtype == "bf16"):
            # One more than the completions, as TRL asks: the last position predicts nothing.
            logits = model(
                input_ids=part["tokens"], attention_mask=part["mask"], logits_to_keep=keep + 1, use_cache=False
            ).logits[:, :-1]
        logprobs = selective_log_softmax(logits, part["tokens"][:, -keep:], row_mask=part["wanted"])
        ratios = torch.exp(logprobs - part["old"])
        credit = part["advantages"][:, None]
        surrogate = torch.minimum(ratios * credit, ratios.clamp(1 - CLIP, 1 + CLIP) * credit)
        loss: Tensor = -(surrogate * part["wanted"]).sum() / total
        torch.autograd.backward(loss)


def gradients(backend: LocalBackend) -> dict[str, Tensor | None]:
    """Of the policy's weights, by transformers' names."""
    # Nothing public has them: gradients never leave an engine, and only this comparison asks for them.
    return {name: p.grad for name, p in backend._policies[POLICY].model.parameters.items()}


def furthest(ours: Mapping[str, Tensor | None], peer: Mapping[str, Tensor | None]) -> float:
    """The largest difference between two sets of gradients, each relative to the norm of its own tensor."""
    apart = 0.0
    for name, theirs in peer.items():
        own = ours[name]
        if theirs is not None and own is not None:
            apart = max(apart, float((own - theirs).norm() / theirs.norm()))
        elif (theirs is None) != (own is None):
            raise ValueError(f"only one side has a gradient for {name}")
    return apart


if __name__ == "__main__":
    main(ROW, measured)
