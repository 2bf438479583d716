"""Supervised fine-tuning: conversations in, what the assistant says trained on."""

import asyncio
import functools
import math
import random
import time
from collections.abc import Sequence

import numpy as np

from fettle.chat import Template
from fettle.config import CausalLM, SFTRun
from fettle.engine import Engine, Policy
from fettle.errors import DataError
from fettle.losses.reduce import token_mean
from fettle.rollouts import stream
from fettle.training.schedule import learning_rate
from fettle.training.session import Session, Summary
from fettle.types import Datum, ForwardResult, Message, OptimResult, datum

Conversation = Sequence[Message]


async def train(
    run: SFTRun,
    *,
    engine: Engine,
    conversations: Sequence[Conversation],
    heldout: Sequence[Conversation],
    template: Template,
    session: Session,
) -> Summary:
    """Train a policy on conversations, from where the session stands to its last step.

    Raises:
        DataError: a conversation is longer than ``max_tokens``.
    """
    policy = await session.policy(engine, run.policy)
    scored = _batch(run, template, heldout, range(len(heldout)))
    if session.progress.checkpoint is None:
        await _evaluate(policy, scored, session, done=0)
        await session.finish_step(policy, 0)
    order = _Order(len(conversations), run.seed)

    def batch(step: int) -> list[Datum]:
        return _batch(run, template, conversations, order.of_batch(step, run.batch_size))

    async for step, data in stream(session.remaining, lambda step: asyncio.to_thread(batch, step), ahead=1):
        started = time.perf_counter()
        result, stepped = await _submit(run, policy, data, step)
        session.log(step + 1, _row(run, result, stepped, data, step, time.perf_counter() - started))
        if (step + 1) % run.evaluation.every == 0 or step + 1 == run.steps:
            await _evaluate(policy, scored, session, done=step + 1)
        if await session.finish_step(policy, step + 1):
            break
    await policy.close()
    return session.summary()


class _Order:
    """Every conversation once an epoch, in an order keyed by the epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._epoch = functools.lru_cache(maxsize=2)(
            lambda epoch: random.Random(f"{seed}/epoch/{epoch}").sample(range(size), size)
        )

    def of_batch(self, step: int, batch_size: int) -> list[int]:
        """Indices of the conversations in one batch."""
        places = range(step * batch_size, (step + 1) * batch_size)
        return [self._epoch(place // self._size)[place % self._size] for place in places]


def _submit(
    run: SFTRun, policy: Policy, data: Sequence[Datum], step: int
) -> "asyncio.Future[tuple[ForwardResult, OptimResult]]":
    rate = learning_rate(run.schedule, run.optimizer.learning_rate, step=step, steps=run.steps)
    result = asyncio.ensure_future(policy.forward_backward(data, CausalLM()))
    stepped = asyncio.ensure_future(policy.optim_step(run.optimizer.model_copy(update={"learning_rate": rate})))
    return asyncio.gather(result, stepped)


def _batch(
    run: SFTRun, template: Template, conversations: Sequence[Conversation], indices: Sequence[int]
) -> list[Datum]:
    rows = [template.conversation(conversations[index]) for index in indices]
    for index, (tokens, _) in zip(indices, rows, strict=True):
        if len(tokens) > run.max_tokens:
            begins = conversations[index][0].content[:60]
            raise DataError(
                f"the conversation that begins {begins!r} has {len(tokens)} tokens, and max_tokens is "
                f"{run.max_tokens}: "
                "raise max_tokens, or leave the conversation out"
            )
    weights = token_mean([np.asarray(mask, np.float32) for _, mask in rows])
    return [datum(tokens, mask, weights=weight) for (tokens, mask), weight in zip(rows, weights, strict=True)]


async def _evaluate(policy: Policy, scored: Sequence[Datum], session: Session, *, done: int) -> None:
    result = await policy.forward(scored, CausalLM())
    row = {"heldout/loss": result.loss, "heldout/perplexity": math.exp(min(result.loss, 700.0))}
    await session.evaluated(policy, done, result.loss, row)


def _row(
    run: SFTRun, result: ForwardResult, stepped: OptimResult, data: Sequence[Datum], step: int, seconds: float
) -> dict[str, float]:
    tokens = sum(len(one.tokens) for one in data)
    return {
        "loss": result.loss,
        "policy/entropy": result.metrics["entropy"],
        "policy/grad_norm": stepped.grad_norm,
        "policy/learning_rate": learning_rate(run.schedule, run.optimizer.learning_rate, step=step, steps=run.steps),
        "policy/version": float(stepped.policy_version),
        "progress/step_tokens": float(tokens),
        "time/step": seconds,
        "speed/tokens_per_second": tokens / seconds,
    }
