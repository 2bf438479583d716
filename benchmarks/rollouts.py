"""Rollouts: tokens a second of the sampler, against ``generate`` on the flat left-padded batch.

Both draw from the whole distribution at temperature 1 until the end token, which is as likely in the weights that both
run. ``generate`` stops counting a row once it has ended, and the batch once all have; whether a static cache makes it
faster is tried first, and it keeps the faster. Useful tokens are counted, the end tokens among them.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import flops
from benchmarks.figures import spread
from benchmarks.harness import Outcome, Row, Settings, interleaved, main
from benchmarks.machine import Floor, synchronize
from benchmarks.models import END_ID, PAD_ID
from benchmarks.workload import Workload, drawn, engine, peer_model, workload

ROW = Row(
    name="rollouts",
    work="rollouts: 16 prompts x 8, prompts of 16 to 128 tokens, completions of 20 on average and at most 64, 17 M",
    peer="transformers generate, flat left-padded batch",
    target=5.0,
)
CONTINUOUS_REPETITIONS = 2
"""Of transformers' continuous batching, which takes minutes; one more goes before, uncounted."""


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    return sampled(settings, floor, workload(settings), continuous=True)


def sampled(settings: Settings, floor: Floor, work: Workload, *, continuous: bool) -> Outcome:
    """Any workload, drawn by both sides."""
    lengths: dict[str, list[int]] = {"ours": [], "peer": []}
    seeds = iter(range(1_000_000))
    tried = {static: _tried(settings, work, static=static) for static in (False, True)}
    static = tried[True] > tried[False]
    with engine(settings, work.model) as backend:
        sides = {
            "ours": _rate(lambda: drawn(backend, work, seed=next(seeds)), settings, lengths["ours"]),
            "peer": _rate(
                lambda: generated(settings, work, seed=next(seeds), static=static), settings, lengths["peer"]
            ),
        }
        found = interleaved(sides, settings.repetitions)
    ours = _side(found["ours"], lengths["ours"], floor, settings, work)
    peer = _side(found["peer"], lengths["peer"], floor, settings, work)
    peer |= {"tried": [{"static_cache": way, "tokens_per_second": rate} for way, rate in tried.items()]}
    peer |= {"chosen": {"static_cache": static}}
    ratio = statistics.median(found["ours"]) / statistics.median(found["peer"])
    if not continuous or settings.device != "cpu":
        return Outcome(ratio, ours, peer)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(work.model).eval()  # its own: the manager changes its attention
    batching = _rate(lambda: batched(model, work), settings, [])
    batching()
    rate = [batching() for _ in range(1 if settings.quick else CONTINUOUS_REPETITIONS)]
    peer["continuous_batching_tokens_per_second"] = spread(rate)
    faster = statistics.median(found["ours"]) > statistics.median(rate)
    return Outcome(ratio, ours, peer, further={"faster than continuous batching": faster})


def _side(rates: list[float], lengths: list[int], floor: Floor, settings: Settings, work: Workload) -> dict[str, Any]:
    """Rates, the mean length, and the multiple of the floor of the mean batch."""
    mean = statistics.fmean(lengths)
    prompts = [len(prompt) for prompt in work.prompts]
    tokens = mean * len(work.batch)
    least = floor.seconds(
        flops.answered(work.size, prompts, work.group, [round(mean)] * len(work.batch)), settings.dtype
    )
    return {
        "tokens_per_second": spread(rates),
        "mean_length": mean,
        "floor_multiple": tokens / statistics.median(rates) / least,
    }


def _rate(call: Callable[[], list[int]], settings: Settings, lengths: list[int]) -> Callable[[], float]:
    """Tokens a second of a call that tells the lengths it drew, which are kept."""

    def timed() -> float:
        started = time.perf_counter()
        found = call()
        synchronize(settings.device)
        seconds = time.perf_counter() - started
        lengths.extend(found)
        return sum(found) / seconds

    return timed


def _tried(settings: Settings, work: Workload, *, static: bool) -> float:
    """The rate of one call of ``generate`` after another that is not counted."""
    call = _rate(lambda: generated(settings, work, seed=0, static=static), settings, [])
    call()
    return call()


@torch.no_grad()
def generated(settings: Settings, work: Workload, *, seed: int, static: bool) -> list[int]:
    """The lengths that transformers' ``generate`` draws."""
    from transformers import GenerationConfig

    model = peer_model(work.model, settings.device, settings.dtype)
    longest = max(map(len, work.batch))
    tokens = torch.full((len(work.batch), longest), PAD_ID)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(work.batch):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    torch.manual_seed(seed)
    drawing = GenerationConfig(
        max_new_tokens=work.max_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        pad_token_id=PAD_ID, eos_token_id=END_ID,
        cache_implementation="static" if static else None, disable_compile=True,
    )  # fmt: skip
    inputs = {"input_ids": tokens.to(settings.device), "attention_mask": mask.to(settings.device)}
    said = model.generate(**inputs, generation_config=drawing)[:, longest:].cpu()
    ended = said == END_ID
    whole = torch.where(ended.any(1), ended.int().argmax(1) + 1, said.shape[1])
    return whole.tolist()


@torch.no_grad()
def batched(model: Any, work: Workload) -> list[int]:
    """The lengths that transformers' continuous batching draws."""
    from transformers import GenerationConfig

    drawing = GenerationConfig(
        max_new_tokens=work.max_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        pad_token_id=PAD_ID, eos_token_id=END_ID,
    )  # fmt: skip
    found = model.generate_batch(work.batch, generation_config=drawing, progress_bar=False)
    return [len(output.generated_tokens) for output in found.values()]


if __name__ == "__main__":
    main(ROW, measured)
