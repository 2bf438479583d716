"""Small runs: a rollout of 64 decisions, learned from in moments."""

import pytest

from fettle.config import load_as
from fettle.config.router import RouterConfig

SWITCHED_ON = ("rllm.enabled=true", "rllm.trainer.enabled=true")
SMALL = (
    *SWITCHED_ON,
    "rllm.ppo.rollout_length=64",
    "rllm.ppo.mini_batch_size=32",
    "rllm.ppo.learning_rate=0.01",
    "rllm.trainer.parallel=8",
    "rllm.trainer.episode_length=6",
    "rllm.trainer.updates=3",
)


@pytest.fixture
def small():
    """``small("rllm.ppo.gamma=0.5")``: the settings of a small run, with others laid over them."""

    def settings(*overrides: str) -> RouterConfig:
        return load_as(RouterConfig, None, [*SMALL, *overrides])

    return settings
