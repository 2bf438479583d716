"""The loop: what each setting does, that it learns, and that a run goes on as if it had never been cut."""

import re

import numpy as np
import pytest

from fettle.config import PPO, Value
from fettle.router.learning import settings
from fettle.router.modes import MODES
from fettle.router.nouns import DOCUMENTED_TERMS
from fettle.router.training import train
from tests.router.conftest import LEARNING


def rows_of(config):
    rows = []
    return rows, train(config, told=rows.append)


def weights(config) -> np.ndarray:
    return np.concatenate([values.ravel() for values in train(config).policy.values()])


PPO_SETTINGS = [
    "rllm.ppo.rollout_length=128",
    "rllm.ppo.mini_batch_size=16",
    "rllm.ppo.update_epochs=1",
    "rllm.ppo.gamma=0.5",
    "rllm.ppo.gae_lambda=0.2",
    "rllm.ppo.clip_coef=0.001",
    "rllm.ppo.value_loss_coef=0.05",
    "rllm.ppo.entropy_coef=0.5",
    "rllm.ppo.learning_rate=0.02",
    "rllm.ppo.max_grad_norm=0.001",
]
OTHERS = [
    "rllm.reward_weights.throughput=3",
    "rllm.reward_weights.reliability=3",
    "rllm.reward_weights.latency=3",
    "rllm.reward_weights.collaboration_cost=3",
    "rllm.reward_weights.violation=3",
    "rllm.trainer.seed=1",
    "rllm.trainer.episode_length=5",
    "rllm.trainer.parallel=4",
    "rllm.trainer.normalize_values=false",
    "rllm.trainer.target_kl=0.000001",
    "rllm.simulator.task_length=2",
    "rllm.hicra.enabled=true",
]


@pytest.mark.parametrize("override", PPO_SETTINGS + OTHERS)
def test_every_setting_changes_what_is_learned(small, override):
    assert not np.array_equal(weights(small()), weights(small(override)))


def test_the_strength_of_planning_credit_matters(small):
    some, more = (weights(small("rllm.hicra.enabled=true", f"rllm.hicra.alpha={alpha}")) for alpha in (0.2, 0.9))
    assert not np.array_equal(some, more)


def test_the_same_settings_learn_the_same_to_the_bit(small):
    np.testing.assert_array_equal(weights(small()), weights(small()))


def test_planning_credit_that_is_off_changes_no_bit(small):
    np.testing.assert_array_equal(weights(small()), weights(small("rllm.hicra.alpha=0.9")))


def test_the_loss_is_that_of_language_models(small):
    ppo = small("rllm.ppo.clip_coef=0.3", "rllm.ppo.entropy_coef=0.02", "rllm.ppo.value_loss_coef=0.7").rllm.ppo
    expected = PPO(clip_low=0.3, clip_high=0.3, entropy_coefficient=0.02, value=Value(coefficient=0.7, clip=None))
    assert settings(ppo) == expected


SLOWLY = (*LEARNING, "rllm.trainer.updates=12")


@pytest.mark.parametrize("policy", ["linear", "mlp"])
def test_it_learns(small, policy):
    rows, _ = rows_of(small(*SLOWLY, f"rllm.policy.type={policy}"))
    late = np.mean([row["mean_reward"] for row in rows[-5:]])
    assert late > np.mean([row["mean_reward"] for row in rows[:3]]) + 0.1


@pytest.mark.parametrize(
    ("weight", "own_term", "agents"),
    [
        ("throughput", +1, -1),  # who asks fewer agents is done sooner
        ("reliability", +1, +1),  # more agents are right more often
        ("latency", -1, -1),
        ("collaboration_cost", -1, -1),
        ("violation", -1, +1),  # what is demanded is met more often by more agents
    ],
)
def test_more_weight_on_a_term_alone_moves_decisions_the_right_way(small, weight, own_term, agents):
    """Its own term rises or falls as its sign says, and so does the number of agents that are asked."""

    def late(value):
        rows = rows_of(small(*SLOWLY, f"rllm.reward_weights.{weight}={value}"))[0][-5:]
        levels = [sum(at * row[f"share_{mode}"] for at, mode in enumerate(MODES)) for row in rows]
        return np.mean([row[DOCUMENTED_TERMS[weight]] for row in rows]), np.mean(levels)

    (term_without, level_without), (term_with, level_with) = late(0), late(4)
    assert own_term * (term_with - term_without) > 0.02
    assert agents * (level_with - level_without) > 0.2


def test_far_from_the_sampler_an_update_ends_early(small):
    rows, _ = rows_of(small("rllm.trainer.target_kl=0.000001"))
    assert {row["epochs"] for row in rows} == {1.0}
    assert {row["epochs"] for row in rows_of(small("rllm.trainer.target_kl=null"))[0]} == {4.0}


def test_a_critic_learns_alike_at_any_scale_of_reward(small):
    """Rewards of a hundred times the size: without normalising, the critic cannot reach them in so few steps."""
    large = [
        f"rllm.reward_weights.{name}={weight}"
        for name, weight in (
            ("throughput", 100),
            ("reliability", 50),
            ("latency", 75),
            ("collaboration_cost", 10),
            ("violation", 100),
        )
    ]

    def explained(*overrides):
        return rows_of(small(*SLOWLY, *large, *overrides))[0][-1]["explained_variance"]

    assert explained() > 0.5
    assert explained("rllm.trainer.normalize_values=false") < 0.2


def test_as_many_episodes_are_played_at_once_as_divide_a_rollout(small):
    assert small("rllm.ppo.rollout_length=100", "rllm.trainer.parallel=32").rllm.at_once == 25
    assert small("rllm.ppo.rollout_length=97", "rllm.trainer.parallel=1").rllm.at_once == 1
    assert small("rllm.ppo.rollout_length=97", "rllm.trainer.parallel=97").rllm.at_once == 97


@pytest.mark.parametrize(
    ("breaker", "told_of", "sentence"),
    [
        ("rllm.breakers.min_entropy=1.5", 0, r"entropy fell to 1\.\d+ nats"),
        ("rllm.breakers.max_kl=0.002", 0, r"the policy went 0\.0\d+ nats from the one that drew the rollout"),
        # A collapse of reward is the fault of the update before, which was told of, and is undone.
        ("rllm.breakers.max_reward_drop=0.3", 1, r"the mean reward after it fell to -?0\.\d+ from -?0\.\d+"),
    ],
)
def test_a_breaker_ends_the_run_with_the_last_policy_that_was_good(small, breaker, told_of, sentence):
    rows, trained = rows_of(small(breaker, "rllm.trainer.seed=7", "rllm.trainer.updates=40"))
    assert re.fullmatch(rf"update {trained.updates + 1} was undone: {sentence}", trained.stopped)
    assert trained.updates == len(rows) - told_of < 40
    if trained.updates:
        good = train(small("rllm.trainer.seed=7", f"rllm.trainer.updates={trained.updates}")).policy
        assert all(np.array_equal(trained.policy[name], values) for name, values in good.items())


def test_breakers_that_are_off_stop_nothing(small):
    _, trained = rows_of(small("rllm.breakers.min_entropy=1.7", "rllm.breakers.enabled=false"))
    assert (trained.updates, trained.stopped) == (3, None)


def test_weights_that_are_no_numbers_never_leave_a_run(small):
    _, trained = rows_of(small("rllm.ppo.learning_rate=1e30", "rllm.trainer.target_kl=null"))
    assert trained.stopped.startswith("update 1 was undone: its numbers are not finite")
    assert all(np.isfinite(values).all() for values in trained.policy.values())
