"""Supervised fine-tuning: conversations in, what the assistant says trained on, or what it is answered."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fettle.chat import Template
from fettle.config import CausalLM, SFTRun, Targets
from fettle.data import reward_weights, target_weights, tools_of
from fettle.engine import Engine, Policy
from fettle.errors import DataError
from fettle.losses.reduce import token_mean
from fettle.rollouts import stream
from fettle.training.measures import perplexity
from fettle.training.offline import QUOTED, Order, check_lengths, due, step_row, update
from fettle.training.session import Session, Summary
from fettle.training.timing import Stopwatch
from fettle.training.updates import submitted
from fettle.types import Datum, Floats, Ints, Message

Conversation = Sequence[Message]

LARGEST_NLL = 700.0
"""Where a perplexity is cut, so that it stays a number that a file can hold."""


async def train(
    run: SFTRun,
    *,
    engine: Engine,
    conversations: Sequence[Conversation],
    heldout: Sequence[Conversation],
    template: Template,
    session: Session,
    rewards: Sequence[float] | None = None,
) -> Summary:
    """Train a policy on conversations, from where the session stands to its last step.

    ``rewards``, one a conversation, are what ``run.weighting`` weighs them by; those held out all weigh the same.

    Raises:
        DataError: conversations are longer than ``max_tokens``, or hold nothing to learn.
    """
    order = Order(len(conversations), run.seed)
    shares = _shares(run, conversations, rewards)
    seen = {index: conversations[index] for index in order.of_run(run.steps, run.batch_size)}
    lessons = await asyncio.to_thread(lessons_of, run, template, seen)
    held = await asyncio.to_thread(lessons_of, run, template, dict(enumerate(heldout)))
    scored = batch_of(run.targets, list(held.values()))
    watch = Stopwatch()
    policy = watch.policy(await session.policy(engine, run.policy))
    if session.progress.checkpoint is None:
        await _evaluate(policy, scored, session, done=0)
        await session.finish_step(policy, 0)

    async def batch(step: int) -> list[Datum]:
        indices = order.of_batch(step, run.batch_size)
        return batch_of(run.targets, [lessons[index] for index in indices], shares[indices])

    watch.restart()
    async for step, data in stream(session.remaining, batch, ahead=1):
        wanted = update(run, data, step)
        outcome = await submitted(policy, wanted, CausalLM())
        told = {"policy/entropy": outcome[0].metrics["entropy"]}
        session.log(step + 1, step_row(wanted, outcome, told, watch))
        if due(run, step + 1):
            await _evaluate(policy, scored, session, done=step + 1)
        if await session.finish_step(policy, step + 1):
            break
        watch.restart()
    await policy.close()
    return session.summary()


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One conversation as tokens, and which of them are learned: 1 where so, and else 0."""

    tokens: Ints
    actions: Floats
    observations: Floats


def lessons_of(run: SFTRun, template: Template, conversations: Mapping[int, Conversation]) -> dict[int, Lesson]:
    """All that a run sees, made ready before its first step, so that what cannot be learned is told at once."""
    lessons = {index: _lesson(template, talk, run.targets) for index, talk in conversations.items()}
    lengths = [len(lesson.tokens) for lesson in lessons.values()]
    check_lengths(run, list(conversations.values()), lengths, what="conversations")
    idle = [index for index, lesson in lessons.items() if not (lesson.actions.any() or lesson.observations.any())]
    if idle:
        begins = conversations[idle[0]][0].content[:QUOTED]
        raise DataError(
            f"{len(idle)} of {len(lessons)} conversations hold nothing to learn, and the first begins {begins!r}: with "
            "targets.actions 0 each needs a message after the assistant's first"
        )
    return lessons


def _lesson(template: Template, messages: Conversation, targets: Targets) -> Lesson:
    if not targets.observations:
        last = max((at for at, message in enumerate(messages) if message.role == "assistant"), default=-1)
        tokens, mask = template.conversation(messages[: last + 1], tools_of(messages))
        return Lesson(np.asarray(tokens, np.int32), np.asarray(mask, np.float32), np.zeros(len(mask), np.float32))
    tokens, owners = template.owners(messages, tools_of(messages))
    actions, observations = (
        np.array([0.0 if owner is None else of_message[owner] for owner in owners], np.float32)
        for of_message in (
            target_weights(messages, actions=1.0 if targets.actions else 0.0, observations=0.0),
            target_weights(messages, actions=0.0, observations=1.0),
        )
    )
    return Lesson(np.asarray(tokens, np.int32), actions, observations)


def _shares(run: SFTRun, conversations: Sequence[Conversation], rewards: Sequence[float] | None) -> Floats:
    """What each conversation weighs [N]; the mean is 1."""
    if run.weighting is None:
        return np.ones(len(conversations), np.float32)
    if rewards is None or len(rewards) != len(conversations):
        given = "none" if rewards is None else str(len(rewards))
        raise DataError(
            f"weighting needs a reward for each of {len(conversations)} conversations, and there are {given}: "
            "give as many"
        )
    return reward_weights(rewards, kind=run.weighting.kind, temperature=run.weighting.temperature)


def batch_of(targets: Targets, lessons: Sequence[Lesson], shares: Floats | None = None) -> list[Datum]:
    """Data whose loss is ``a · mean over action tokens + o · mean over observation tokens``, a and o the targets'."""
    weights = [np.zeros(len(lesson.tokens), np.float32) for lesson in lessons]
    for weight, masks in (
        (targets.actions, [lesson.actions for lesson in lessons]),
        (targets.observations, [lesson.observations for lesson in lessons]),
    ):
        if any(mask.any() for mask in masks):
            weights = [so_far + weight * mean for so_far, mean in zip(weights, token_mean(masks), strict=True)]
    if shares is not None:
        weights = [share * weight for share, weight in zip(shares, weights, strict=True)]
    return [
        Datum(lesson.tokens, lesson.actions + lesson.observations, {"weights": weight})
        for lesson, weight in zip(lessons, weights, strict=True)
    ]


async def _evaluate(policy: Policy, scored: Sequence[Datum], session: Session, *, done: int) -> None:
    result = await policy.forward(scored, CausalLM())
    row = {"heldout/loss": result.loss, "heldout/perplexity": perplexity(min(result.metrics["nll"], LARGEST_NLL))}
    await session.evaluated(policy, done, result.loss, row)
