"""Learning from which reply is better: preferences without a reward model, ratings, and reward models themselves."""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fettle.chat import Template
from fettle.config import KTO, PolicySpec, PreferenceRun, Reading, RewardModeling, RewardModelRun
from fettle.engine import Engine, Policy, Sampler
from fettle.losses import calibration_error, required_inputs
from fettle.rollouts import stream
from fettle.training import compared
from fettle.training.compared import Example, Loss, Reply
from fettle.training.evaluation import interval
from fettle.training.offline import Order, check_lengths, due, step_row, update
from fettle.training.session import Session, Summary
from fettle.training.timing import Stopwatch
from fettle.training.updates import submitted
from fettle.types import Datum, Floats


async def train(
    run: PreferenceRun | RewardModelRun,
    *,
    engine: Engine,
    examples: Sequence[Example],
    heldout: Sequence[Example],
    template: Template,
    session: Session,
) -> Summary:
    """Train a policy, or a reward model, on pairs or ratings, from where the session stands to its last step.

    Raises:
        DataError: examples are longer than ``max_tokens``.
    """
    order = Order(len(examples), run.seed)
    seen = {index: examples[index] for index in order.of_run(run.steps, run.batch_size)}
    known = await asyncio.to_thread(_encoded, run, template, seen)
    kept = await asyncio.to_thread(_encoded, run, template, dict(enumerate(heldout)))
    watch = Stopwatch()
    policy = watch.policy(await session.policy(engine, policy_spec(run)))
    reference = await _reference(run, engine, watch)
    scored = await _compared(run.loss, list(kept.values()), reference)
    if session.progress.checkpoint is None:
        await _evaluate(run.loss, policy, scored, session, done=0)
        await session.finish_step(policy, 0)

    apart = asyncio.Lock()

    async def batch(step: int) -> _Compared:
        # The reference's last bits depend on what shares its batch, and a resumed run draws other batches together.
        async with apart:
            return await _compared(run.loss, [known[at] for at in order.of_batch(step, run.batch_size)], reference)

    watch.restart()
    async for step, drawn in stream(session.remaining, batch, ahead=1):
        wanted = update(run, await _against_baseline(policy, drawn), step)
        outcome = await submitted(policy, wanted, run.loss)
        told = {f"policy/{name}": value for name, value in outcome[0].metrics.items()}
        session.log(step + 1, step_row(wanted, outcome, told, watch))
        if due(run, step + 1):
            await _evaluate(run.loss, policy, scored, session, done=step + 1)
        if await session.finish_step(policy, step + 1):
            break
        watch.restart()
    await policy.close()
    return session.summary()


def policy_spec(run: PreferenceRun | RewardModelRun) -> PolicySpec:
    """What is trained; a reward model has a head that scores."""
    return run.policy.model_copy(update={"head": "reward"}) if isinstance(run, RewardModelRun) else run.policy


def reads_reference(loss: Loss) -> bool:
    """Whether the policy is compared with a reference."""
    return "reference_logprobs" in required_inputs(loss)


def _encoded(
    run: PreferenceRun | RewardModelRun, template: Template, examples: Mapping[int, Example]
) -> dict[int, tuple[Reply, ...]]:
    """All that a run sees, made ready before its first step, so that what does not fit is told at once."""
    found = compared.encoded(template, examples)
    lengths = [max(len(reply.tokens) for reply in replies) for replies in found.values()]
    what = "replies" if isinstance(run.loss, KTO) else "pairs"
    check_lengths(run, [example.prompt for example in examples.values()], lengths, what=what)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """What one step compares; ``apart`` are the prompts of KTO's data with the replies to others."""

    data: Sequence[Datum]
    apart: Sequence[Datum]


async def _reference(run: PreferenceRun | RewardModelRun, engine: Engine, watch: Stopwatch) -> Sampler | None:
    if not isinstance(run, PreferenceRun) or not reads_reference(run.loss):
        return None
    return watch.sampler(await engine.sampler(run.reference or str(run.policy.model)))


async def _compared(loss: Loss, examples: Sequence[tuple[Reply, ...]], reference: Sampler | None) -> _Compared:
    data = compared.batch(examples)
    if reference is None:
        return _Compared(data, [])
    apart = compared.mismatched(examples) if isinstance(loss, KTO) else []
    together = await compared.with_reference([*data, *apart], reference)
    return _Compared(together[: len(data)], together[len(data) :])


async def _against_baseline(policy: Policy, drawn: _Compared) -> Sequence[Datum]:
    """The data, with the baseline where one is measured: by the policy as it is now."""
    if not drawn.apart:
        return drawn.data
    said = await policy.forward(drawn.apart, Reading(of="logprobs"))
    return compared.with_baseline(drawn.data, drawn.apart, said.logprobs)


async def _evaluate(loss: Loss, policy: Policy, scored: _Compared, session: Session, *, done: int) -> None:
    data = await _against_baseline(policy, scored)
    result = await policy.forward(data, loss)
    margins = compared.margins(loss, data, result)
    hits = compared.hits(margins)
    low, high = interval(hits)
    row = {
        "heldout/loss": result.loss,
        "heldout/accuracy": statistics.fmean(hits),
        "heldout/accuracy_low": low,
        "heldout/accuracy_high": high,
        "heldout/margin": float(margins.mean()),
    }
    if isinstance(loss, RewardModeling):
        row["heldout/calibration_error"] = _calibration(margins / loss.temperature, hits)
    await session.evaluated(policy, done, row["heldout/accuracy"], row)


def _calibration(logits: Floats, hits: Sequence[float]) -> float:
    """How far the certainty about the reply that scores higher is from how often it is the chosen one."""
    certainty = 1 / (1 + np.exp(-np.abs(logits)))
    return calibration_error(certainty.astype(np.float32), np.array(hits, np.float32))
