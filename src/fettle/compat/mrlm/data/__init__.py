"""Steps of episodes, gathered to learn from."""

from fettle.compat.mrlm.data.buffer import RolloutBatch, RolloutBuffer

__all__ = ["RolloutBatch", "RolloutBuffer"]
