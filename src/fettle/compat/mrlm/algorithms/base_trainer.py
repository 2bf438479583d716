"""What every trainer can do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class BaseTrainer(Protocol):
    """A policy environment that is trained on others."""

    metrics_history: Sequence[Mapping[str, float]]
    """One row for each epoch that was told of."""

    def train(self) -> Sequence[Mapping[str, float]]:
        """Train to the configured number of epochs; the policy environment's model is then the trained one."""
        ...

    def evaluate(self) -> Mapping[str, float]:
        """Play episodes with the model as it is."""
        ...

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write the model and its tokenizer."""
        ...

    def load_checkpoint(self, folder: str | Path) -> None:
        """Put the weights in ``folder`` into the policy environment's model."""
        ...
