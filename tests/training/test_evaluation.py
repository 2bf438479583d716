"""Held-out scores: several completions a task, what they have in common, and policies side by side."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, SamplingParams
from fettle.engine.local import LocalBackend
from fettle.errors import EnvironmentFault
from fettle.training import evaluate
from fettle.training.evaluation import chances_at
from fettle.training.measures import exact_kl
from fettle.training.standings import standings

from .conftest import small
from .games import Game
from .skewed import exact


@pytest.fixture
def engine(tmp_path):
    broker = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    yield broker
    broker.close()


async def evaluated(tiny, engine, reward, **settings):
    template = Template(load_tokenizer(tiny))
    params = SamplingParams(max_tokens=4, stop_token_ids=tuple(template.end_token_ids))
    sampler = await engine.sampler(tiny)
    return await evaluate(
        [Game(reward)], tasks=6, sampler=sampler, template=template, params=params, seed=0, **settings
    )


def test_pass_at_k_is_told_for_doublings_and_for_all():
    """Of three tasks one is always right, one is right once in four, one never."""
    by_task = [[True] * 4, [False, True, False, False], [False] * 4]
    assert chances_at(by_task, 4) == {1: [1.0, 0.25, 0.0], 2: [1.0, 0.5, 0.0], 4: [1.0, 1.0, 0.0]}
    assert set(chances_at([[True] * 6], 6)) == {1, 2, 4, 6}
    assert chances_at([*by_task, [True, True]], 4) == chances_at(by_task, 4)  # one that lost completions is left out
    assert chances_at([[True]], 4) == {}


@pytest.mark.parametrize(
    ("paid", "share"),
    [
        ({"number": 1.0, "calls": -0.02}, 1.0),  # right, and two calls were made on the way
        ({"number": 0.0, "calls": -0.02}, 0.0),
        ({"tests": 0.5, "calls": -0.02}, 0.0),
        ({"tests": 0.75, "short": 0.25}, 1.0),
    ],
)
async def test_what_an_answer_is_charged_does_not_make_it_wrong(tiny, engine, paid, share):
    found = await evaluated(tiny, engine, lambda reply, task: paid, samples=2)
    assert found.pass_at == {1: share, 2: share}
    assert found.reward == pytest.approx(sum(paid.values()))


async def test_the_first_completion_of_a_task_is_the_same_however_many_follow(tiny, engine):
    def length(reply, task):
        return len(reply) / 100

    one, three = [await evaluated(tiny, engine, length, samples=samples) for samples in (1, 3)]
    first = [trajectory.tokens for trajectory in one.trajectories]
    assert [trajectory.tokens for trajectory in three.trajectories][::3] == first
    assert len({tuple(t.tokens) for t in three.trajectories}) > len(first)
    assert (one.row["heldout/tasks"], three.row["heldout/tasks"]) == (6, 6)
    assert one.pass_at == {}
    ends = ("", "_low", "_high")
    names = {f"heldout/pass@{k}{end}" for k in (1, 2, 3) for end in ends}
    assert {name for name in three.row if "pass@" in name} == names


async def test_pass_at_k_has_an_interval_over_tasks(tiny, engine):
    def by_task(reply, task):
        return float(int(task.data["answer"]) % 2)

    found = await evaluated(tiny, engine, by_task, samples=2)
    assert found.pass_at[1] == found.pass_at[2] == found.reward
    assert found.pass_intervals[1] == found.pass_intervals[2] == (found.low, found.high)
    assert found.intervals == {"game": (found.low, found.high)}


async def test_the_interval_counts_tasks_and_not_their_completions(tiny, engine):
    """Completions of one task tell little about the others: drawing more of them must not feign certainty."""

    def by_task(reply, task):
        return float(int(task.data["answer"]) % 2)

    one, five = [await evaluated(tiny, engine, by_task, samples=samples) for samples in (1, 5)]
    assert (five.reward, five.low, five.high) == (one.reward, one.low, one.high)


async def test_a_completion_that_failed_is_counted_and_is_no_zero(tiny, engine):
    calls = iter(range(100))

    def sometimes(reply, task):
        if next(calls) % 6 == 0:
            raise EnvironmentFault("broken")
        return 1.0

    found = (await evaluated(tiny, engine, sometimes, samples=2)).row
    assert (found["heldout/reward"], found["heldout/failed"], found["heldout/tasks"]) == (1.0, 2.0, 6.0)


async def test_the_distance_between_two_policies_is_the_divergence_of_their_distributions(tiny, engine, tmp_path):
    """T13: drawn replies of one token against the sum over the vocabulary."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    torch.manual_seed(0)
    with torch.no_grad():
        model.get_output_embeddings().weight += 0.3 * torch.randn_like(model.get_output_embeddings().weight)
    other = str(tmp_path / "other")
    model.save_pretrained(other)
    load_tokenizer(tiny).save_pretrained(other)

    def template_of(weights: str) -> Template:
        return Template(load_tokenizer(weights))

    game = Game(lambda *_: 1.0)
    run = small(tiny, evaluation={"tasks": 1, "samples": 600}, sampling={"max_tokens": 1})
    rows = await standings(run, {other: tiny}, engine=engine, suites=[game], template_of=template_of)
    prompt = template_of(tiny).prompt(list(game.heldout_tasks()[0].prompt))
    vocabulary = model.config.vocab_size
    p, q = [await exact(await engine.sampler(weights), prompt, vocabulary) for weights in (other, tiny)]
    expected = float(exact_kl(p, q))
    spread = float(np.sqrt((np.exp(p) * ((p - q) - expected) ** 2).sum() / 600))
    assert expected > 20 * spread
    assert rows[other]["heldout/kl"] == pytest.approx(expected, abs=4 * spread)


async def test_a_policy_is_no_distance_from_itself(tiny, engine):
    run = small(tiny, evaluation={"tasks": 4})
    rows = await standings(
        run, {tiny: tiny}, engine=engine, suites=[Game(lambda *_: 1.0)],
        template_of=lambda weights: Template(load_tokenizer(weights)),
    )  # fmt: skip
    assert rows[tiny]["heldout/kl"] == pytest.approx(0.0, abs=1e-6)
    assert rows[tiny]["heldout/reward"] == 1.0
    assert 0 < rows[tiny]["heldout/distinct_1"] <= rows[tiny]["heldout/distinct_2"] <= 1
