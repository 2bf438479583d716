"""Trainers, and what each of them can do."""

from fettle.compat.mrlm.algorithms.base_trainer import BaseTrainer

__all__ = ["BaseTrainer"]
