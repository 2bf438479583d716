"""A teacher's word on each token: the advantage that it makes, and a student that comes near it."""

import random

import numpy as np
import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import AdamW, LocalEngine, PolicySpec, Rehearsal, Teacher, WorkedSums
from fettle.engine import Engine
from fettle.engine.local import LocalBackend
from fettle.training.distillation import distilled
from fettle.training.measures import exact_kl
from fettle.training.rehearsal import Rehearser
from fettle.types import Message, datum

from .conftest import small, trained
from .copying import ROWS, questions
from .games import Game, length
from .skewed import exact


class Fixed:
    """Satisfies ``Sampler`` as far as scoring goes: one log-probability for every token, which temperature scales."""

    policy_version = 0

    async def logprobs(self, tokens, *, temperature=1.0):
        return [None] + [-2.0 * temperature] * (len(tokens) - 1)


async def test_a_tokens_advantage_is_what_the_teacher_gives_it_over_the_sampler():
    one = datum([1, 2, 3], [0, 1, 1], sampling_logprobs=[0, -1, -3], advantages=[0, 0.5, 0.5])
    cooler = datum([1, 2], [0, 1], temperature=0.5, sampling_logprobs=[0, -1], advantages=[0, 0])
    [[first], [second]], row = await distilled([[one], [cooler]], Fixed(), Teacher(model="x", coefficient=2.0))
    assert first.streams["advantages"].tolist() == [0, 0.5 - 2, 0.5 + 2]
    assert second.streams["advantages"].tolist() == [0, 0]
    assert row == {"distill/reverse_kl": pytest.approx((1 - 1 + 0) / 3)}


async def test_without_a_teacher_nothing_changes():
    data = [[datum([1, 2], [0, 1], sampling_logprobs=[0, -1], advantages=[0, 1])]]
    assert await distilled(data, None, None) == (data, {})


async def test_a_policy_is_no_distance_from_itself(tiny, tmp_path):
    run = small(tiny, preset="distill", teacher={"model": tiny}, steps=1)
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert rows.column("distill/reverse_kl")[0] == pytest.approx(0, abs=1e-6)
    assert rows.column("policy/grad_norm")[0] < 1e-5


async def taught(engine: Engine, start: str) -> str:
    """A teacher made by demonstrations, of which seven in ten say the first letter."""
    taste = random.Random("taste")
    demonstrations = [
        (Message("user", row["prompt"]), Message("assistant", taste.choice("aaaaaaabcd"))) for row in ROWS
    ]
    settings = Rehearsal(data=WorkedSums(), batch_size=64, coefficient=1.0)
    shown = Rehearser(settings, demonstrations, Template(load_tokenizer(start)), seed=0)
    policy = await engine.create_policy(PolicySpec(model=start))
    for step in range(60):
        await shown.add(policy, step)
        await policy.optim_step(AdamW(learning_rate=3e-3))
    return (await policy.save("teacher", optimizer=False)).path


async def apart(engine: Engine, student: str, teacher: str) -> float:
    """``KL(student‖teacher)`` of the first token after each of a few questions, over the whole vocabulary."""
    tokenizer = load_tokenizer(student)
    one, other = await engine.sampler(student), await engine.sampler(teacher)
    prompts = [Template(tokenizer).prompt([Message("user", row["prompt"])]) for row in ROWS[::64]]
    found = [
        exact_kl(await exact(one, prompt, len(tokenizer)), await exact(other, prompt, len(tokenizer)))
        for prompt in prompts
    ]
    return float(np.mean(found))


async def test_a_student_comes_near_a_teacher_without_any_reward(babbler, tmp_path):
    """Measured over the whole vocabulary and not on its own samples, the divergence falls to less than a half."""
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    student = babbler
    teacher = await taught(engine, student)
    run = small(
        student, preset="distill", teacher={"model": teacher}, environments=[questions(tmp_path)], steps=30,
        groups_per_step=16, group_size=4, sampling={"max_tokens": 1}, optimizer={"learning_rate": 0.003, "beta2": 0.99},
        evaluation={"every": 30, "tasks": 50}, checkpoints={"every": 30},
    )  # fmt: skip
    done = await trained(run, tmp_path / "run")
    before, after = [await apart(engine, weights, teacher) for weights in (student, done.summary.checkpoint)]
    engine.close()
    assert after < before / 2
    told = done.memory.column("distill/reverse_kl")
    assert np.mean(told[-10:]) < told[0] / 2
    assert told[0] == pytest.approx(before, rel=0.3)


def test_a_distillation_needs_a_teacher():
    with pytest.raises(ValueError, match="advantage: none gives rewards no credit, so nothing is learned from"):
        small("unused", preset="distill")
