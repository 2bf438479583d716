"""Proximal policy optimisation."""

from fettle.compat.mrlm.algorithms.ppo.config import PPOConfig
from fettle.compat.mrlm.algorithms.ppo.loss import (
    compute_entropy_bonus,
    compute_ppo_loss,
    compute_ppo_total_loss,
    compute_value_loss,
)
from fettle.compat.mrlm.algorithms.ppo.trainer import PPOTrainer

__all__ = [
    "PPOConfig",
    "PPOTrainer",
    "compute_entropy_bonus",
    "compute_ppo_loss",
    "compute_ppo_total_loss",
    "compute_value_loss",
]
