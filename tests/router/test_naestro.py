"""The documented names and signatures."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from fettle.compat.naestro import (
    DEFAULT_COLLAB_PREFS,
    HICRA_DEFAULTS,
    CollaborationMode,
    CollaborationPolicy,
    PPOParams,
    RewardWeights,
    Router,
    RouterEnv,
    RouterPPOAdapter,
    build_hicra_from_dict,
    clamp_prefs,
    compute_reward,
    ppo_train,
)
from fettle.config import CollaborationPreferences
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
    assert trained["simulated"] is True
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


def test_the_preferences_have_the_documented_names_and_defaults():
    assert dict(DEFAULT_COLLAB_PREFS) == {
        "mode": "consult",
        "depth": 1,
        "auto": True,
        "ask_online": True,
        "budget_usd": 0.50,
        "p95_latency_s": 20,
        "answer_strategy": "self_if_confident",
        "confidence_threshold": 0.70,
    }
    assert clamp_prefs() == clamp_prefs({}) == DEFAULT_COLLAB_PREFS


def test_preferences_are_brought_to_the_nearest_that_can_be_and_a_router_takes_them():
    clamped = clamp_prefs({"depth": 9, "budget_usd": -1.0, "confidence_threshold": 2, "mode": "swarm"})
    assert (clamped["depth"], clamped["budget_usd"], clamped["confidence_threshold"]) == (3, 0, 1)
    assert CollaborationPreferences(**clamped).mode == "swarm"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"dept": 1}, "did you mean 'depth'"),
        ({"mode": "swram"}, "did you mean swarm"),
        ({"auto": 1}, "'auto'"),
        ({"budget_usd": float("nan")}, "budget_usd"),
    ],
)
def test_preferences_that_cannot_be_are_one_sentence(wrong, sentence):
    with pytest.raises(ConfigError, match=sentence) as told:
        clamp_prefs(wrong)
    assert "\n" not in told.value.message


def test_planning_steps_get_more_credit_and_the_others_what_they_had():
    rewards, planning = np.array([[1.0, -1.0, 2.0], [0.5, 0.0, -2.0]]), np.array([[1, 1, 0], [0, 0, 1]])
    credit = build_hicra_from_dict({"hicra": {"multiplier": 1.2}})
    np.testing.assert_allclose(credit(rewards, planning), [[1.2, -0.8, 2.0], [0.5, 0.0, -1.6]], rtol=1e-6)
    np.testing.assert_allclose(credit(rewards), rewards)
    np.testing.assert_allclose(build_hicra_from_dict({})(rewards, planning), rewards)  # the documented weight is 1


def test_switched_off_the_rewards_are_what_they_were():
    rewards = [[1.0, -1.0]]
    assert build_hicra_from_dict({"enabled": False, "planner_weight": 9})(rewards, [[1, 1]]) is rewards


def test_normalizing_keeps_a_good_trajectory_apart_from_a_bad_one():
    rewards = np.array([[1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(build_hicra_from_dict({"normalize": True})(rewards), [[1, 1], [-1, -1]], rtol=1e-6)
    much = build_hicra_from_dict({"normalize": True, "epsilon": 0.75})(rewards)
    np.testing.assert_allclose(much, [[0.5, 0.5], [-0.5, -0.5]], rtol=1e-6)
    np.testing.assert_allclose(build_hicra_from_dict({"normalize": True})(np.ones((2, 2))), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"planer_weight": 1}, "did you mean planner_weight"),
        ({"planner_weight": -1}, "hicra.planner_weight is -1: it is a number from 0 on"),
        ({"enabled": 1}, "hicra.enabled is 1: it is true or false"),
        ({"eps": float("inf")}, "hicra.eps is inf"),
    ],
)
def test_settings_of_credit_that_cannot_be_are_one_sentence(wrong, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_hicra_from_dict(wrong)
    with pytest.raises(ConfigError, match="mark each step"):
        build_hicra_from_dict({})([1.0, 2.0], [1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: RouterPPOAdapter().train(0), "trainer.updates"),
        (lambda: RouterPPOAdapter().train("2"), "trainer.updates"),
        (lambda: RouterPPOAdapter(seed=-1), "trainer.seed"),
        (lambda: RouterPPOAdapter(PPOParams(gamma="high")), "ppo.gamma"),
        (lambda: RouterPPOAdapter(PPOParams(gamma=float("nan"))), "ppo.gamma"),
        (lambda: RouterEnv(episode_length=0), "trainer.episode_length"),
        (lambda: RouterEnv(seed=-1), "trainer.seed"),
        (lambda: RouterEnv(RewardWeights(latency=-1.0)), "reward_weights.latency"),
        (lambda: under_way().step(5), "action is 5: it must be a whole number from 0 to 4"),
        (lambda: under_way().step(0.5), "action is 0.5"),
        (lambda: under_way().step("solo"), "action is 'solo'"),
        (lambda: compute_reward({"latency": "late"}, RewardWeights()), "the term latency is 'late'"),
        (lambda: PPOParams.from_dict([1]), "it takes a mapping of rollout_length"),
        (lambda: PPOParams.from_dict({3: 1}), "has no 3"),
        (lambda: Router(3), "there is no mode 3"),
        (lambda: clamp_prefs("solo"), "they are a mapping of mode"),
        (lambda: build_hicra_from_dict("on"), "it is a mapping of enabled"),
        (lambda: build_hicra_from_dict({"hicra": True}), "it is a mapping of enabled"),
        (lambda: build_hicra_from_dict({})([[1.0], [1.0, 2.0]]), "rewards are no numbers in rows of one length"),
        (lambda: build_hicra_from_dict({})(["a"]), "rewards are no numbers"),
    ],
)
def test_what_cannot_be_is_one_sentence(wrong, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as told:
        wrong()
    assert "\n" not in told.value.message


def under_way():
    environment = RouterEnv()
    environment.reset()
    return environment


def test_numbers_of_numpy_are_numbers():
    params = PPOParams(rollout_length=np.int64(8), mini_batch_size=8, gamma=np.float64(0.5), update_epochs=1)
    assert len(RouterPPOAdapter(params, seed=np.int64(3)).train(np.int64(1))["history"]) == 1
    assert under_way().step(np.int64(1))[3]["mode"] == "consult"
    assert compute_reward({"throughput": np.float32(1)}, RewardWeights()) == 1.0


def test_the_documented_file_of_credit_is_every_default():
    tree = yaml.safe_load((Path(__file__).parents[2] / "configs" / "training" / "hicra.yaml").read_text())
    assert tree == {"hicra": dict(HICRA_DEFAULTS)}
    np.testing.assert_allclose(build_hicra_from_dict(tree)([1.0, -2.0], [1, 0]), [1.0, -2.0])
