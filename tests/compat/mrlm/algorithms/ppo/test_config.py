"""Documented names and defaults, what they become, and what is refused."""

import warnings
from pathlib import Path

import pytest

from fettle.compat.mrlm.algorithms.ppo import PPOConfig
from fettle.compat.mrlm.algorithms.ppo.config import engine_settings, recipe
from fettle.config import HardLimit, Sampling, documented
from fettle.errors import ConfigError

DOCUMENTED_DEFAULTS = {
    "num_epochs": 100, "num_rollouts_per_iteration": 128, "num_ppo_epochs": 4, "batch_size": 64, "mini_batch_size": 16,
    "max_episode_length": 512, "learning_rate": 3e-4, "max_grad_norm": 0.5, "clip_range": 0.2,
    "value_clip_range": None, "gamma": 0.99, "gae_lambda": 0.95, "value_loss_coef": 0.5, "entropy_coef": 0.01,
    "target_kl": None, "normalize_advantages": True, "eval_every": 5, "eval_episodes": 10, "save_every": 10,
    "log_every": 1,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_settings_have_the_documented_names_and_defaults():
    assert PPOConfig().model_dump() == DOCUMENTED_DEFAULTS


def test_every_setting_of_the_update_reaches_the_recipe():
    config = PPOConfig(
        num_epochs=7, num_rollouts_per_iteration=24, num_ppo_epochs=3, batch_size=8, mini_batch_size=4,
        learning_rate=0.1, max_grad_norm=0.3, clip_range=0.15, value_clip_range=0.4, gamma=1.0, gae_lambda=0.9,
        value_loss_coef=0.7, entropy_coef=0.05, target_kl=0.02, normalize_advantages=False, eval_every=2,
        eval_episodes=12, save_every=3,
    )  # fmt: skip
    run = recipe(config, model="model", heldout=(2, 1), sampling=Sampling(max_tokens=5))
    assert (run.steps, run.groups_per_step, run.group_size, run.epochs, run.minibatches) == (7, 24, 1, 3, 3)
    assert (run.optimizer.learning_rate, run.optimizer.clip_norm) == (0.1, 0.3)
    assert (run.loss.clip_low, run.loss.clip_high, run.loss.entropy_coefficient, run.loss.kl) == (
        0.15,
        0.15,
        0.05,
        None,
    )
    assert (run.critic.gamma, run.critic.gae_lambda, run.critic.normalize) == (1.0, 0.9, "none")
    assert (run.critic.value.coefficient, run.critic.value.clip) == (0.7, 0.4)
    assert run.trust_region == HardLimit(limit=0.02)
    assert (run.evaluation.every, run.evaluation.samples, run.checkpoints.every) == (2, 4, 3)
    assert engine_settings(config, context=100).train_tokens == 400


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_epoch": 3}, r"PPOConfig: unknown key 'num_epoch'; did you mean 'num_epochs'\?"),
        ({"clip_range": -1}, r"PPOConfig: 'clip_range' should be greater than 0 \(got -1\)"),
        ({"batch_size": 48}, "PPOConfig: num_rollouts_per_iteration is 128, which .* batches of 48: change batch_size"),
        ({"num_epochs": 0, "clip_rage": 1}, r"PPOConfig: 'num_epochs' .*\nPPOConfig: unknown key 'clip_rage'; .*"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=f"^{said}$"):
        PPOConfig(**settings)


def test_the_discount_is_told_of_the_line_that_took_it():
    documented._warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        PPOConfig()
    assert [Path(warning.filename) for warning in told] == [Path(__file__)]
