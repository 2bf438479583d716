"""The documented entrance to learning from historical issues, over ``fettle.issues`` and the ordinary trainer."""

from fettle.compat.rllm.benchmarks import BenchmarkIntegration, TrajectoryIntegration
from fettle.compat.rllm.config import (
    RLLMConfig,
    RLLMDistributedConfig,
    RLLMModelConfig,
    RLLMRewardConfig,
    RLLMTrainingConfig,
    get_config_for_model,
    get_deepcoder_config,
    get_default_config,
)
from fettle.compat.rllm.tracking import MLIntegration
from fettle.compat.rllm.trainer import RLLMTrainer
from fettle.rewards import RewardCalculator

__all__ = [
    "BenchmarkIntegration",
    "MLIntegration",
    "RLLMConfig",
    "RLLMDistributedConfig",
    "RLLMModelConfig",
    "RLLMRewardConfig",
    "RLLMTrainer",
    "RLLMTrainingConfig",
    "RewardCalculator",
    "TrajectoryIntegration",
    "get_config_for_model",
    "get_deepcoder_config",
    "get_default_config",
]
