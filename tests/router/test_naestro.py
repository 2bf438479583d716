"""The documented names and signatures."""

import numpy as np
import pytest

from fettle.compat.naestro import (
    CollaborationMode,
    CollaborationPolicy,
    PPOParams,
    RewardWeights,
    Router,
    RouterEnv,
    RouterPPOAdapter,
    compute_reward,
    ppo_train,
)
from fettle.errors import ConfigError


@pytest.mark.parametrize(
    ("mode", "allowed", "refused"),
    [
        ("solo", [1], [0, 2]),
        ("consult", [1, 2], [0, 3]),
        ("collaborate", [2, 9], [1]),
        ("consensus", [2, 9], [1]),
        ("swarm", [3, 9], [2]),
    ],
)
def test_each_mode_takes_the_documented_number_of_agents(mode, allowed, refused):
    for count in allowed:
        assert Router(mode).route(["agent"] * count) == ["agent"] * count
        CollaborationPolicy.enforce(CollaborationMode(mode), count)
    for count in refused:
        with pytest.raises(ValueError, match=f"{mode} was given {count} agents"):
            Router(mode).route(["agent"] * count)


def test_an_unknown_mode_is_one_sentence():
    with pytest.raises(ConfigError, match="did you mean swarm"):
        Router("swram")


def test_an_adapter_trains_and_hands_back_history_and_weights():
    params = PPOParams(rollout_length=32, mini_batch_size=16, update_epochs=1)
    trained = RouterPPOAdapter(params, RewardWeights(), seed=42, episode_length=8).train(2)
    assert [row["update"] for row in trained["history"]] == [1.0, 2.0]
    assert {name: array.shape for name, array in trained["policy_state"].items()} == {
        "policy_w": (4, 5),
        "policy_b": (5,),
        "value_w": (4,),
        "value_b": (1,),
    }
    again = ppo_train(params, RewardWeights(), 2, seed=42, episode_length=8)
    assert again["history"] == trained["history"]
    np.testing.assert_array_equal(again["policy_state"]["policy_w"], trained["policy_state"]["policy_w"])


def test_settings_from_a_mapping_take_defaults_and_no_unknown_names():
    assert PPOParams.from_dict({"gamma": 0.9}) == PPOParams(gamma=0.9)
    assert RewardWeights.from_dict({}) == RewardWeights(1.0, 0.5, 0.75, 0.1, 1.0)
    with pytest.raises(ConfigError, match="did you mean gamma"):
        PPOParams.from_dict({"gama": 0.9})


@pytest.mark.parametrize("wrong", [{"mini_batch_size": 512}, {"gamma": 0.0}, {"learning_rate": -1.0}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RouterPPOAdapter(PPOParams(**wrong), RewardWeights())


def test_an_episode_is_one_of_the_documented_environment():
    environment = RouterEnv(seed=1, episode_length=3)
    assert environment.reset().shape == (4,)
    for step in (1, 2, 3):
        observation, reward, done, info = environment.step(2)
        assert observation.dtype == np.float32
        assert reward == pytest.approx(compute_reward(info["metrics"], RewardWeights()))
        assert (info["mode"], info["step"], done) == ("collaborate", step, step == 3)
    with pytest.raises(ConfigError, match="call reset"):
        environment.step(0)


def test_a_missing_term_counts_as_nothing_and_a_violation_has_two_names():
    weights = RewardWeights()
    assert compute_reward({"throughput": 2.0}, weights) == 2.0
    assert compute_reward({"violation_penalty": 0.5}, weights) == compute_reward({"violation": 0.5}, weights) == -0.5
