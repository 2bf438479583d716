"""Supervised fine-tuning on a real engine."""

import asyncio
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import CausalLM, LocalEngine, PolicySpec, SFTRun
from fettle.engine.local import LocalBackend
from fettle.errors import DataError
from fettle.tracking import RunFolder
from fettle.training import Session, sft
from fettle.training.offline import Order
from fettle.training.sft import batch_of, lessons_of
from fettle.types import Message

from .conftest import Memory


def conversation(question: str, answer: str) -> tuple[Message, ...]:
    return (Message("user", question), Message("assistant", answer))


EIGHT = [conversation(f"What is {n} + {n} ?", f"It is {2 * n}") for n in range(1, 9)]


async def trained(run: SFTRun, folder: Path, conversations=EIGHT, heldout=EIGHT, rewards=None) -> Memory:
    memory, place = Memory(), RunFolder.at(folder)
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=place.checkpoints))
    session = Session(place, memory, checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event())
    session.stop_when(patience=run.evaluation.patience, lower_is_better=True)
    template = Template(load_tokenizer(str(run.policy.model)))
    try:
        await sft.train(
            run,
            engine=engine,
            conversations=conversations,
            heldout=heldout,
            template=template,
            session=session,
            rewards=rewards,
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
    """T1."""
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


MAZE = (
    Message("user", "Go"),
    Message("assistant", "left"),
    Message("tool", "a wall"),
    Message("assistant", "right"),
    Message("tool", "the exit"),
)


def learned(tiny: str, talk: tuple[Message, ...], **targets: float) -> str:
    """What is trained on, as text."""
    [data] = batch_of(*lessons(tiny, [talk], **targets))
    return load_tokenizer(tiny).decode(data.tokens[data.loss_mask > 0].tolist())


def lessons(tiny: str, talks, **targets: float):
    run = small(tiny, targets=targets)
    return run.targets, list(lessons_of(run, Template(load_tokenizer(tiny)), dict(enumerate(talks))).values())


def test_only_what_the_assistant_says_is_trained_on(tiny):
    assert learned(tiny, EIGHT[0]) == "It is 2<|end|>"


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        ({"actions": 1.0}, "left<|end|>right<|end|>"),
        ({"actions": 0.0, "observations": 1.0}, "a wall<|end|>the exit<|end|>"),
        ({"actions": 1.0, "observations": 0.5}, "left<|end|>a wall<|end|>right<|end|>the exit<|end|>"),
    ],
)
def test_the_targets_are_what_is_done_what_is_seen_or_both(tiny, targets, text):
    """L15: behaviour cloning, a world model, and both at once."""
    assert learned(tiny, MAZE, **targets) == text


async def test_learning_both_is_the_weighted_sum_of_learning_either(tiny):
    """L15, of the loss of every token and so of its gradient: the means are each over tokens of one kind."""
    talks = [MAZE, MAZE[:3], (*MAZE[:1], Message("assistant", "up"), Message("tool", "nothing at all"))]
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=Path()))
    try:
        policy = await engine.create_policy(PolicySpec(model=tiny))
        cases = [{"actions": 1.0}, {"actions": 0.0, "observations": 1.0}, {"actions": 2.0, "observations": 0.3}]
        cloned, modelled, both = [
            await policy.forward(batch_of(*lessons(tiny, talks, **case)), CausalLM()) for case in cases
        ]
    finally:
        engine.close()
    assert both.loss == pytest.approx(2 * cloned.loss + 0.3 * modelled.loss, rel=1e-5)
    for result in (cloned, modelled):
        assert result.loss == pytest.approx(result.metrics["nll"], rel=1e-5)


def test_a_conversation_with_nothing_to_learn_is_told(tiny):
    told = (
        r"1 of 2 conversations hold nothing to learn, and the first begins 'What is 1 \+ 1 \?': with targets.actions 0"
    )
    with pytest.raises(DataError, match=told):
        lessons(tiny, [MAZE, EIGHT[0]], actions=0.0, observations=1.0)


def alike(*memories: Memory) -> bool:
    told = [
        [{k: v for k, v in row.items() if not k.startswith(("time", "speed"))} for row in memory.rows]
        for memory in memories
    ]
    return all(rows == told[0] for rows in told)


@pytest.mark.parametrize("kind", ["reward", "advantage"])
async def test_conversations_that_earned_the_same_are_learned_as_if_none_had_earned_anything(tiny, tmp_path, kind):
    """L16. T10 too: two runs of one seed tell the same numbers."""
    plain = await trained(small(tiny), tmp_path / "plain")
    again = await trained(small(tiny), tmp_path / "again")
    data = {"type": "episodes", "path": "unused.jsonl"}
    run = small(tiny, data=data, weighting={"kind": kind})
    weighed = await trained(run, tmp_path / "weighed", rewards=[0.7] * len(EIGHT))
    assert alike(plain, again, weighed)


async def test_of_two_conversations_that_earned_1_and_0_only_the_first_is_learned(tiny, tmp_path):
    """L16. Their replies are of one length, so that the first alone has the same share of its batch."""
    paid, unpaid = conversation("a", "It is 3"), conversation("b", "It is 4")
    data = {"type": "episodes", "path": "unused.jsonl"}
    run = small(tiny, data=data, weighting={}, batch_size=2, steps=6)
    weighed = await trained(run, tmp_path / "weighed", [paid, unpaid], [paid], rewards=[1.0, 0.0])
    alone = await trained(small(tiny, batch_size=1, steps=6), tmp_path / "alone", [paid], [paid])
    assert weighed.column("heldout/loss") == pytest.approx(alone.column("heldout/loss"), rel=1e-4)
    assert weighed.column("policy/grad_norm") == pytest.approx(alone.column("policy/grad_norm"), rel=1e-3)


async def test_weighting_without_a_reward_for_each_is_refused(tiny, tmp_path):
    run = small(tiny, data={"type": "episodes", "path": "unused.jsonl"}, weighting={})
    with pytest.raises(DataError, match="a reward for each of 8 conversations, and there are 2: give as many"):
        await trained(run, tmp_path, rewards=[1.0, 0.0])


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
