"""Replies under way when the policy is updated, the bound on their age, and a synchronous run to compare with."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import Abort, AdamW, CausalLM, Keep, LocalEngine, PolicySpec, SamplingParams
from fettle.engine import Policy, Sampler
from fettle.engine.local import LocalBackend
from fettle.environments import StepResult, suite
from fettle.rollouts import Following
from fettle.training.learning import Learner
from fettle.types import Message, datum

from .conftest import drawer_of, small, trained
from .games import Game, Once, length

PROMPT = [5, 6, 7]
TEN = SamplingParams(max_tokens=10, seed=3, end_tokens=False)


@pytest.fixture
async def policy(tiny, tmp_path) -> AsyncIterator[Policy]:
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "checkpoints"))
    yield await engine.create_policy(PolicySpec(model=tiny))
    engine.close()


class Trainee:
    """A policy that is updated whenever its newest weights are asked for, as far as it may be."""

    def __init__(self, policy: Policy, samplers: list[Sampler]) -> None:
        self._policy = policy
        self.samplers = samplers

    async def updated(self) -> None:
        await self._policy.forward_backward([datum([*PROMPT, 9, 8, 7], [0, 0, 0, 1, 1, 1])], CausalLM())
        await self._policy.optim_step(AdamW(learning_rate=0.05))
        self.samplers.append(await self._policy.sampler())

    def newest(self) -> Sampler:
        return self.samplers[-1]


class Pausing:
    """Satisfies ``Sampler``: another one, before each answer of which the policy is updated."""

    def __init__(self, inner: Sampler, trainee: Trainee) -> None:
        self.policy_version, self._inner, self._trainee = inner.policy_version, inner, trainee

    async def sample(self, prompt, n, params):
        found = await self._inner.sample(prompt, n, params)
        if len(self._trainee.samplers) < 3:
            await self._trainee.updated()
        return found


@pytest.fixture
async def trainee(policy) -> Trainee:
    return Trainee(policy, [await policy.sampler()])


async def test_a_reply_that_is_kept_goes_on_with_new_weights_and_says_who_drew_what(trainee):
    """Two updates, after the fourth and the eighth token; every log-probability is that of who drew the token."""
    following = Following(lambda: Pausing(trainee.newest(), trainee), Keep(tokens=4))
    (found,) = await following.sample(PROMPT, 1, TEN)
    assert found.spans == ((0, 4, 0), (4, 8, 1), (8, 10, 2))
    assert (found.policy_version, found.stop_reason, following.given_up) == (0, "length", 0)
    read = [await sampler.logprobs([*PROMPT, *found.tokens]) for sampler in trainee.samplers]
    drawn_by = [span.policy_version for span in found.spans for _ in range(span.start, span.end)]
    expected = [read[version][len(PROMPT) + place] for place, version in enumerate(drawn_by)]
    assert found.logprobs == pytest.approx(expected, abs=1e-4)
    others = [read[(version + 1) % 3][len(PROMPT) + place] for place, version in enumerate(drawn_by)]
    assert min(abs(a - b) for a, b in zip(found.logprobs, others, strict=True)) > 1e-3


async def test_a_reply_that_is_aborted_is_drawn_anew_by_the_newest_weights_alone(trainee):
    following = Following(lambda: Pausing(trainee.newest(), trainee), Abort(tokens=4))
    (found,) = await following.sample(PROMPT, 1, TEN)
    assert found.spans == ((0, 10, 2),)
    assert following.given_up == 8
    read = await trainee.newest().logprobs([*PROMPT, *found.tokens])
    assert found.logprobs == pytest.approx(read[len(PROMPT) :], abs=1e-4)


async def test_what_fits_into_one_piece_is_what_the_sampler_itself_draws(trainee):
    for params in (TEN, TEN.model_copy(update={"max_tokens": 300})):  # the second fills the context of 256
        (own,) = await trainee.newest().sample(PROMPT, 1, params)
        (found,) = await Following(trainee.newest, Keep(tokens=params.max_tokens)).sample(PROMPT, 1, params)
        pieces = await Following(trainee.newest, Keep(tokens=64)).sample(PROMPT, 1, params)
        assert (found.tokens, found.logprobs, found.spans) == (own.tokens, own.logprobs, own.spans)
        assert [(len(piece.tokens), piece.stop_reason) for piece in pieces] == [(len(own.tokens), own.stop_reason)]


class Slow(Game):
    """Answers after a while, never the same."""

    def environment(self) -> "Late":
        return Late(self._reward)


class Late(Once):
    async def step(self, action: Message) -> StepResult:
        await asyncio.sleep(random.Random(action.content).random() * 0.01)
        return await super().step(action)


@pytest.mark.parametrize(("in_flight", "tokens", "steps"), [("keep", 2, 60), ("abort", 1, 10)])
async def test_no_token_is_older_than_may_be_however_late_environments_are(tiny, tmp_path, in_flight, tokens, steps):
    run = small(
        tiny, steps=steps, max_staleness=2, in_flight={"type": in_flight, "tokens": tokens}, groups_per_step=1,
        group_size=2, checkpoints={"every": 1000}, evaluation={"every": 1000, "tasks": 1}, correction={},
    )  # fmt: skip
    memory = (await trained(run, tmp_path, [Slow(length)])).memory
    lags, means = memory.column("policy/lag"), memory.column("policy/lag_mean")
    assert len(lags) == steps
    assert max(lags) == 2
    assert all(0 <= mean <= lag for mean, lag in zip(means, lags, strict=True))
    across, given_up = memory.column("rollout/across_updates"), memory.column("rollout/given_up_tokens")
    assert (max(across) > 0, max(given_up) > 0) == (in_flight == "keep", in_flight == "abort")


async def test_without_staleness_it_is_the_synchronous_run_to_the_bit(tiny, tmp_path):
    """Against a loop that draws, then learns, with nothing between."""
    run = small(tiny, steps=3, evaluation={"every": 3, "tasks": 4}, checkpoints={"every": 3})
    found = await trained(run, tmp_path / "run")
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "plain"))
    policy = await engine.create_policy(run.policy)
    suites = [suite(environment) for environment in run.environments]
    drawer = drawer_of(run, suites, policy, Template(load_tokenizer(tiny)))
    learner = Learner(run, policy)
    rows = [await learner.learn(step, await drawer.draw(step)) for step in range(run.steps)]
    saved = await policy.save("end")
    engine.close()
    steps = [row for row in found.memory.rows if "policy/loss" in row]
    assert [{name: row[name] for name in own} for row, own in zip(steps, rows, strict=True)] == rows
    ours, plain = (load_file(Path(place) / "model.safetensors") for place in (found.summary.checkpoint, saved.path))
    assert ours.keys() == plain.keys()
    assert all(np.array_equal(ours[name], plain[name]) for name in ours)


async def test_a_batch_that_has_aged_is_corrected_to_the_policy_that_learns(policy, tiny):
    """Drawn by version 0 and learned from by version 1: the loss's ratio is 1 again, and the weights bear the age."""
    run = small(tiny, max_staleness=1, correction={}, advantage="group_centered", group_size=4)
    batch = await drawer_of(run, [Game(length)], policy, Template(load_tokenizer(tiny))).draw(0)
    adam = {"learning_rate": 0.01}
    rows = [await Learner(run.model_copy(update={"optimizer": AdamW(**adam)}), policy).learn(0, batch) for _ in "ab"]
    assert [row["policy/lag"] for row in rows] == [0, 1]
    assert [row["policy/ratio"] for row in rows] == pytest.approx([1, 1], abs=1e-4)
    assert rows[0]["policy/mismatch"] < 1e-4 < 0.01 < rows[1]["policy/mismatch"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "with max_staleness: 0 the policy is never updated while replies are drawn"),
        ({"max_staleness": 1, "sampling": {"stop": ["\n"]}}, "leave sampling.stop out"),
    ],
)
def test_what_cannot_be_kept_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        small("unused", in_flight={"type": "keep"}, **settings)
