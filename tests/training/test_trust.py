"""Trust regions: what is measured, what follows it, and that a hard limit is one."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import KL, PPO, AdamW, KLControl, LocalEngine, PolicySpec, QuadraticPenalty, Reading
from fettle.engine.local import LocalBackend
from fettle.rollouts import to_datum
from fettle.training import trust
from fettle.training.learning import Learner
from fettle.training.updates import Update
from fettle.types import datum

from .conftest import drawer_of, small, trained
from .games import Game, length

VIOLENT = {"learning_rate": 0.05, "clip_norm": None}


def rare(reply: str, task) -> float:
    """Pays for what the policy hardly ever writes: an invitation to leave everything it knows."""
    return float(sum(reply.count(letter) for letter in "zq#"))


@pytest.fixture
def engine(tmp_path):
    broker = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "checkpoints"))
    yield broker
    broker.close()


async def from_sampler(policy, data) -> float:
    """KL(μ‖π) by its k3 estimate, written out: the mean of π/μ - 1 - log π/μ over the tokens drawn."""
    now = (await policy.forward(data, Reading(of="logprobs"))).logprobs
    ratios = np.concatenate(
        [(n - d.streams["sampling_logprobs"])[d.loss_mask > 0] for n, d in zip(now, data, strict=True)]
    )
    return float(np.mean(np.exp(ratios) - 1 - ratios))


@pytest.mark.parametrize("adam", [VIOLENT, {"learning_rate": 0.0008}], ids=["in one leap", "in small steps"])
async def test_against_an_adversarial_reward_no_step_ends_beyond_a_hard_limit(tiny, engine, adam):
    """Measured after every step, by a forward pass and a formula of the test's own."""
    run = small(
        tiny, preset="conservative_ppo", critic={"place": "model"}, trust_region={"limit": 0.02}, minibatches=1,
        epochs=6, groups_per_step=4, group_size=4, optimizer=adam,
    )  # fmt: skip
    policy, critic = [await engine.create_policy(PolicySpec(model=tiny, head=head)) for head in (None, "value")]
    suites = [Game(lambda reply, task: rare(reply, task) - len(reply) / 10)]
    drawer = drawer_of(run, suites, policy, Template(load_tokenizer(tiny)))
    learner = Learner(run, policy, critic=critic)
    rows = []
    for step in range(6):
        batch = await drawer.draw(step)
        rows.append(await learner.learn(step, batch))
        reached = await from_sampler(policy, [to_datum(t) for group in batch.groups for t in group.trajectories])
        assert reached <= 0.02
        assert rows[-1]["trust/kl"] == pytest.approx(reached, rel=1e-4, abs=1e-6)
    assert sum(row["trust/undone"] for row in rows) > 0
    assert (max(row["trust/kl"] for row in rows) > 0.01) == (adam is not VIOLENT)


async def test_without_the_limit_the_same_run_goes_far_beyond_it(tiny, engine):
    run = small(tiny, advantage="group_centered", optimizer=VIOLENT, groups_per_step=4, group_size=4)
    policy = await engine.create_policy(PolicySpec(model=tiny))
    drawer = drawer_of(run, [Game(length)], policy, Template(load_tokenizer(tiny)))
    batch = await drawer.draw(0)
    await Learner(run, policy).learn(0, batch)
    assert await from_sampler(policy, [to_datum(t) for group in batch.groups for t in group.trajectories]) > 0.2


async def test_a_step_that_stays_within_the_limit_is_kept(tiny, tmp_path):
    run = small(tiny, trust_region={"type": "hard", "limit": 1.0}, optimizer={"learning_rate": 1e-4}, epochs=2)
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert set(rows.column("trust/undone")) == {0.0}
    assert rows.column("policy/version") == [2.0 * step for step in range(1, 7)]


async def test_an_undone_step_ends_the_batch_and_is_counted_as_a_version(tiny, tmp_path):
    run = small(tiny, trust_region={"type": "hard", "limit": 1e-9}, optimizer=VIOLENT, epochs=3, steps=2)
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert rows.column("trust/undone") == [1.0, 1.0]
    assert rows.column("policy/version") == [2.0, 4.0]
    assert max(rows.column("trust/kl")) <= 1e-9
    assert rows.column("reward/mean")[0] > 0


@pytest.mark.parametrize(
    ("rate", "factor"),
    [(1e-7, 0.5), (0.05, 2.0)],
    ids=["a small step halves", "a large one doubles"],
)
async def test_the_adaptive_coefficient_follows_the_divergence(tiny, tmp_path, rate, factor):
    run = small(
        tiny, trust_region={"type": "adaptive", "target": 0.01, "coefficient": 0.4}, optimizer={"learning_rate": rate},
        steps=3,
    )  # fmt: skip
    done = await trained(run, tmp_path, [Game(length)])
    measured, used = done.memory.column("trust/kl"), done.memory.column("trust/coefficient")
    assert used[:2] == [0.4, pytest.approx(0.4 * factor)]
    assert all(kl < 0.01 / 1.5 for kl in measured) if factor < 1 else measured[0] > 0.015
    for kl, before, after in zip(measured, used, used[1:], strict=False):
        assert after / before == (0.5 if kl < 0.01 / 1.5 else 2.0 if kl > 0.015 else 1.0)
    assert done.memory.column("trust/penalty") == [pytest.approx(k * b) for k, b in zip(measured, used, strict=True)]


async def test_the_multiplier_rises_by_the_excess_while_the_limit_is_broken(tiny, tmp_path):
    run = small(
        tiny, trust_region={"type": "lagrangian", "limit": 0.001, "rate": 5.0}, optimizer={"learning_rate": 0.02},
        steps=4,
    )  # fmt: skip
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    used, measured = rows.column("trust/coefficient"), rows.column("trust/kl")
    assert used[0] == 0.0
    assert used[1] > 0.0
    for kl, before, after in zip(measured, used, used[1:], strict=False):
        assert after == pytest.approx(max(0.0, before + 5 * (kl - 0.001)))


async def test_the_quadratic_penalty_has_the_gradient_of_its_square(tiny, engine):
    """c max(0, d - limit)² by finite differences, for a policy already away from its sampler."""
    region = QuadraticPenalty(limit=0.01, coefficient=3.0)
    policy = await engine.create_policy(PolicySpec(model=tiny))
    streams = {"sampling_logprobs": [0, -2, -2, -2], "advantages": [0.0] * 4, "weights": [0, 1 / 3, 1 / 3, 1 / 3]}
    drawn = datum([5, 6, 7, 8], [0, 1, 1, 1], **streams)
    measured = await trust.divergence_now(policy, [drawn], "sampler")
    assert measured > 0.01
    result = await trust.held(policy, [Update([drawn], AdamW(learning_rate=1e-12))], PPO(), region, 0.0)
    slope = result.row["trust/coefficient"]
    step = 1e-4
    square = [3.0 * max(0.0, measured + sign * step - 0.01) ** 2 for sign in (-1, 1)]
    assert slope == pytest.approx((square[1] - square[0]) / (2 * step), rel=1e-3)
    assert result.row["trust/penalty"] == pytest.approx(3.0 * (measured - 0.01) ** 2, rel=1e-3)
    # The loss of the update is the slope times the divergence, and so its gradient that of the square.
    assert result.outcomes[0][0].loss == pytest.approx(slope * measured, rel=1e-3)


async def test_the_reference_can_be_what_is_held_to(tiny, tmp_path):
    run = small(
        tiny, trust_region={"type": "adaptive", "target": 0.01, "of": "reference"}, optimizer={"learning_rate": 0.01}
    )
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert rows.column("policy/kl")[0] == pytest.approx(0.0, abs=1e-6)
    assert rows.column("trust/kl")[-1] > 1e-4
    assert all(math.isfinite(kl) for kl in rows.column("policy/kl_k3"))


async def test_the_kl_penalty_in_the_loss_follows_what_is_measured(tiny, tmp_path):
    run = small(tiny, loss={"kl": {"coefficient": 0.1}}, kl_control={"target": 0.5, "kind": "doubling"}, steps=3)
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert rows.column("policy/kl_coefficient") == [0.1, 0.05, 0.025]
    assert max(rows.column("policy/kl")) < 0.5 / 1.5


def test_the_proportional_controller_moves_by_the_share_of_its_horizon():
    control = KLControl(target=0.1, horizon=100)
    assert trust.controlled(control, 1.0, 0.3, episodes=10) == pytest.approx(1.02)
    assert trust.controlled(control, 1.0, 0.09, episodes=10) == pytest.approx(0.99)


def test_the_recipe_takes_the_coefficient_that_a_run_has_come_to():
    run = small("unused", loss={"kl": {"coefficient": 0.1}}, kl_control={"target": 0.1})
    assert trust.first_state(run) == {"kl_coefficient": 0.1}
    assert trust.with_kl_coefficient(run, {"kl_coefficient": 0.7}).loss.kl == KL(coefficient=0.7)


@pytest.mark.parametrize("older", [{"max_staleness": 1}, {"replay": {}, "loss": {"type": "importance_sampling"}}])
def test_a_hard_limit_is_refused_where_the_batch_may_be_an_older_policys(older):
    with pytest.raises(ValidationError, match="use max_staleness: 0 and no replay"):
        small("unused", trust_region={"type": "hard"}, **older)
