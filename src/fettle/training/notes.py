"""What a plan remarks on: settings that cannot act, too little room, files that are not there."""

from collections.abc import Iterator
from pathlib import Path

from fettle.config import RLRun, StageConfig, TorchEngine
from fettle.config.load import leaves
from fettle.engine import Capabilities
from fettle.training.memory import ACTIVATIONS, context_of, micro_batch_tokens

LOWERED_BY = {ACTIVATIONS: "engine.train_tokens", "sampler's cache": "engine.sample_tokens"}
"""The setting that each part of the memory estimate grows with."""

Memory = tuple[tuple[str, int], ...]


def plan_notes(run: StageConfig, memory: Memory, capabilities: Capabilities) -> Iterator[str]:
    """A sentence for each thing that somebody should know before the run starts."""
    yield from _idle(run)
    yield from _context(run)
    for key, path in absent_files(run):
        yield f"{key} is {path}, and there is no such file here"
    if isinstance(run.engine, TorchEngine):
        yield from _sampling_thread(run, run.engine)
        yield from _memory(run, run.engine, memory, capabilities)


def _idle(run: StageConfig) -> Iterator[str]:
    """Settings that are read and yet cannot act in this run."""
    if (
        isinstance(run, RLRun)
        and run.minibatches * run.epochs == 1
        and run.max_staleness == 0
        and run.loss.type in ("ppo", "gspo")
    ):
        yield "the loss never clips: with one minibatch and no staleness every ratio is 1 (use more minibatches)"
    optimizer_steps = run.steps * (run.minibatches * run.epochs if isinstance(run, RLRun) else 1)
    if run.schedule.warmup_steps >= optimizer_steps:
        yield "schedule.warmup_steps covers the whole run: the learning rate never reaches its peak"


def _sampling_thread(run: StageConfig, engine: TorchEngine) -> Iterator[str]:
    if engine.sampling_threads is not None and not (isinstance(run, RLRun) and run.max_staleness):
        yield (
            "engine.sampling_threads gains nothing without staleness: sampling waits for each step, and has only those "
            "threads (set max_staleness, or leave it out)"
        )


def _memory(run: StageConfig, engine: TorchEngine, memory: Memory, capabilities: Capabilities) -> Iterator[str]:
    if not memory:
        yield f"no memory estimate: the shape of {run.policy.model} cannot be told without loading it"
    needed = sum(size for _, size in memory)
    if not capabilities.memory_bytes:
        yield f"there is no {capabilities.device} device here: the plan is for a machine that has one"
    elif needed > capabilities.memory_bytes:
        held = capabilities.memory_bytes / 2**30
        mend = _to_lower(run, engine, memory, capabilities.device)
        yield f"about {needed / 2**30:.1f} GiB are needed and {capabilities.device} has {held:.1f}: {mend}"


def _to_lower(run: StageConfig, engine: TorchEngine, memory: Memory, device: str) -> str:
    """What takes the most and can be made smaller, in words."""
    most = max((each for each in memory if each[0] in LOWERED_BY), key=lambda each: each[1], default=memory[0])
    adapters = "" if run.policy.lora is not None else ", or train with policy.lora"
    lowered = LOWERED_BY.get(most[0], "engine.train_tokens")
    filled = micro_batch_tokens(run, engine, device)
    below = f" below {filled}" if lowered == "engine.train_tokens" and filled < engine.train_tokens else ""
    return f"lower {lowered}{below}{adapters}"


def _context(run: StageConfig) -> Iterator[str]:
    context = context_of(run.policy.model)
    if isinstance(run, RLRun) and context is not None and run.sampling.max_tokens >= context:
        longest = run.sampling.max_tokens
        yield f"sampling.max_tokens is {longest}, and the model's context is {context}, prompt included: lower it"


def absent_files(run: StageConfig) -> Iterator[tuple[str, str]]:
    """Settings that name a data file, and the file, where there is none."""
    for key, _, name, value in leaves(run):
        if name in ("path", "heldout_path") and value is not None and not Path(value).is_file():
            yield key, value
