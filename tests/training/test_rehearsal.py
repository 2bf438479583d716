"""Demonstrations beside rewards: the gradient that they add, which of them a step sees, and what they are good for."""

import asyncio
import json
import random
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import AdamW, CausalLM, LocalEngine, PolicySpec, Rehearsal, TinyModel, WorkedSums
from fettle.data import Conversation
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.environments import suite
from fettle.errors import DataError
from fettle.training.rehearsal import Rehearser
from fettle.types import Message

from .conftest import small, trained
from .games import Game

EIGHT: list[Conversation] = [(Message("user", f"{n}"), Message("assistant", f"It is {n * n}")) for n in range(1, 9)]


def settings(**given) -> Rehearsal:
    return Rehearsal(data=WorkedSums(), **given)


def rehearser(tiny: str, conversations=EIGHT, *, seed: int = 0, **given) -> Rehearser:
    return Rehearser(settings(**given), conversations, Template(load_tokenizer(tiny)), seed=seed)


def said(data) -> list[tuple[int, ...]]:
    return [tuple(one.tokens.tolist()) for one in data]


def test_what_a_step_rehearses_depends_on_seed_and_step_alone(tiny):
    first, again, other = (rehearser(tiny, batch_size=4, seed=seed) for seed in (0, 0, 1))
    assert said(first.batch(5)) == said(again.batch(5))
    assert said(first.batch(4)) != said(first.batch(5)) != said(other.batch(5))


def test_each_conversation_is_rehearsed_once_before_any_is_again(tiny):
    of = rehearser(tiny, batch_size=4)
    assert len(set(said(of.batch(0) + of.batch(1)))) == 8


def test_the_weights_make_the_mean_over_tokens_times_the_coefficient(tiny):
    data = rehearser(tiny, batch_size=3, coefficient=0.2).batch(0)
    assert sum(float(one.weights.sum()) for one in data) == pytest.approx(0.2)
    assert len({float(weight) for one in data for weight in one.weights[one.loss_mask > 0]}) == 1


def test_there_must_be_something_to_rehearse(tiny):
    with pytest.raises(DataError, match=r"there is no conversation to rehearse: see that rehearsal\.data holds some"):
        rehearser(tiny, [])


async def test_its_gradient_adds_to_that_of_the_next_step(tiny, tmp_path):
    """``∇(L + c L')``: a rehearsal of all conversations beside an equal one with the sign turned leaves nothing."""
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    policy = await engine.create_policy(PolicySpec(model=tiny))
    of = rehearser(tiny, coefficient=0.5)
    row = await of.add(policy, 0)
    turned = [one.weights * -1.0 for one in of.batch(0)]
    data = [type(one)(one.tokens, one.loss_mask, {"weights": w}) for one, w in zip(of.batch(0), turned, strict=True)]
    result = await policy.forward_backward(data, CausalLM())
    assert (await policy.optim_step(AdamW(learning_rate=1e-9))).grad_norm == pytest.approx(0, abs=1e-6)
    assert row["rehearsal/loss"] == pytest.approx(-result.loss / 0.5)
    engine.close()


async def test_what_is_rehearsed_is_learned_where_rewards_say_nothing(tiny, tmp_path):
    run = small(
        tiny, steps=12, rehearsal=settings(coefficient=1.0), optimizer={"learning_rate": 0.01},
        evaluation={"every": 12, "tasks": 4}, checkpoints={"every": 12},
    )  # fmt: skip
    losses = (await trained(run, tmp_path, [Game(lambda reply, task: 1.0)], rehearsed=EIGHT)).memory
    found = losses.column("rehearsal/loss")
    assert set(losses.column("advantage/nonzero")) == {0.0}
    assert found[-1] < found[0] / 2


LETTERS = "abcdefgh"
COPIES = [(f"{noise}{more} {letter}", letter) for noise, more, letter in product(LETTERS, repeat=3)]


def shown(pairs: Iterable[tuple[str, str]]) -> list[Conversation]:
    return [(Message("user", asked), Message("assistant", answer)) for asked, answer in pairs]


@pytest.fixture(scope="module")
def babbler(tmp_path_factory) -> str:
    """A model that says one letter of eight and ends, whatever it is asked."""
    return asyncio.run(babbled(tmp_path_factory.mktemp("models") / "babbler"))


async def babbled(folder: Path) -> str:
    start = make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, context=64), folder / "blank", texts=["a b c d"])
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=folder))
    policy = await engine.create_policy(PolicySpec(model=start))
    rng = random.Random("babble")
    babble = rehearser(start, shown((asked, rng.choice(LETTERS)) for asked, _ in COPIES), batch_size=64, coefficient=1)
    for step in range(40):
        await babble.add(policy, step)
        await policy.optim_step(AdamW(learning_rate=3e-3))
    saved = await policy.save("babbler", optimizer=False)
    engine.close()
    return saved.path


async def test_a_hybrid_reaches_a_target_in_fewer_steps_than_rewards_alone(babbler, tmp_path):
    """Eight letters to choose from and four tries a question: most groups are all wrong, and teach nothing."""
    path = tmp_path / "copies.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": asked, "answer": answer}) for asked, answer in COPIES))
    environment = {"type": "jsonl", "path": str(path), "answer_in": "text", "system": None, "heldout": 50}
    alone = small(
        babbler, environments=[environment], steps=40, groups_per_step=16, group_size=4, minibatches=2,
        epochs=2, sampling={"max_tokens": 2}, optimizer={"learning_rate": 0.003, "beta2": 0.99},
        evaluation={"every": 4, "tasks": 50, "target": 0.4}, checkpoints={"every": 40},
    )  # fmt: skip
    hybrid = alone.model_copy(update={"rehearsal": settings(batch_size=32, coefficient=0.5)})
    kept = {task.prompt[-1].content for task in suite(alone.environments[0]).heldout_tasks()}
    demonstrations = shown((asked, answer) for asked, answer in COPIES if asked not in kept)
    steps = {}
    for name, run in (("alone", alone), ("hybrid", hybrid)):
        done = await trained(run, tmp_path / name, rehearsed=demonstrations)
        assert done.memory.column("heldout/reward")[0] < 0.25
        steps[name] = done.summary.steps
    assert steps["hybrid"] < steps["alone"]
