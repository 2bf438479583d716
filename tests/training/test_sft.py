"""Supervised fine-tuning on a real engine."""

import asyncio
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, SFTRun
from fettle.engine.local import LocalBackend
from fettle.errors import DataError
from fettle.tracking import RunFolder
from fettle.training import Session, sft
from fettle.training.offline import Order
from fettle.types import Message

from .conftest import Memory


def conversation(question: str, answer: str) -> tuple[Message, ...]:
    return (Message("user", question), Message("assistant", answer))


EIGHT = [conversation(f"What is {n} + {n} ?", f"It is {2 * n}") for n in range(1, 9)]


async def trained(run: SFTRun, folder: Path, conversations=EIGHT, heldout=EIGHT) -> Memory:
    memory, place = Memory(), RunFolder.at(folder)
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=place.checkpoints))
    session = Session(place, memory, checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event())
    session.stop_when(patience=run.evaluation.patience, lower_is_better=True)
    template = Template(load_tokenizer(str(run.policy.model)))
    try:
        await sft.train(
            run, engine=engine, conversations=conversations, heldout=heldout, template=template, session=session
        )
    finally:
        engine.close()
    return memory


def small(model: str, **settings) -> SFTRun:
    defaults = {
        "policy": {"model": model},
        "data": {"type": "conversations", "path": "unused.jsonl"},
        "steps": 10,
        "batch_size": 4,
        "optimizer": {"learning_rate": 0.01},
        "evaluation": {"every": 5},
    }
    return SFTRun.model_validate({**defaults, **settings})


async def test_it_overfits_eight_examples(tiny, tmp_path):
    memory = await trained(small(tiny, steps=120, batch_size=8, evaluation={"every": 120}), tmp_path)
    assert memory.column("heldout/loss")[0] > 2
    assert memory.column("heldout/loss")[-1] < 0.05


async def test_every_conversation_is_seen_once_an_epoch(tiny, tmp_path):
    """Two epochs of two steps: the sum of the trained tokens of each epoch is that of all eight conversations."""
    memory = await trained(small(tiny, steps=4, evaluation={"every": 4}), tmp_path)
    tokens = memory.column("progress/step_tokens")
    template = Template(load_tokenizer(tiny))
    whole = sum(len(template.conversation(each)[0]) for each in EIGHT)
    assert tokens[0] + tokens[1] == tokens[2] + tokens[3] == whole


async def test_only_what_the_assistant_says_is_trained_on(tiny, tmp_path):
    """Other questions of the same tokens' number, same answers: the same first loss up to what the context changes."""
    template = Template(load_tokenizer(tiny))
    tokens, mask = template.conversation(EIGHT[0])
    said = [token for token, trained_on in zip(tokens, mask, strict=True) if trained_on]
    assert load_tokenizer(tiny).decode(said) == "It is 2<|end|>"


async def test_patience_counts_a_loss_that_does_not_fall(tiny, tmp_path):
    run = small(
        tiny, steps=40, optimizer={"learning_rate": 3.0, "clip_norm": None}, evaluation={"every": 2, "patience": 2}
    )
    memory = await trained(run, tmp_path)
    assert max(row["step"] for row in memory.rows) < 40


async def test_conversations_too_long_are_counted_and_the_first_is_quoted_before_anything_is_made(tiny, tmp_path):
    long = [
        conversation(f"Tell me {what} long story please", "Once upon a time " * n) for what, n in (("a", 9), ("no", 20))
    ]
    told = (
        r"2 of 10 conversations are longer than max_tokens, which is 64: the first begins 'Tell me a long story please'"
    )
    with pytest.raises(DataError, match=told):
        await trained(small(tiny, max_tokens=64, steps=5), tmp_path, [*EIGHT, *long])
    assert not list((tmp_path / "checkpoints").iterdir())


async def test_what_a_run_never_gets_to_may_be_long(tiny, tmp_path):
    long = conversation("Tell me a long story please", "Once upon a time " * 20)
    order = Order(9, seed=0).of_run(steps=1, batch_size=4)
    unseen = next(index for index in range(9) if index not in order)
    memory = await trained(small(tiny, max_tokens=64, steps=1), tmp_path, [*EIGHT[:unseen], long, *EIGHT[unseen:]])
    assert len(memory.column("loss")) == 1


async def test_the_learning_rate_follows_its_schedule(tiny, tmp_path):
    run = small(tiny, schedule={"type": "linear", "warmup_steps": 5}, evaluation={"every": 10})
    rates = (await trained(run, tmp_path)).column("policy/learning_rate")
    assert rates == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01, 0.01, 0.0075, 0.005, 0.0025, 0.0])
