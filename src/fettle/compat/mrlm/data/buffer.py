"""Steps of episodes, as they are gathered, and what is learned from them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fettle.advantages import gae, normalized
from fettle.advantages.finite import Doubles
from fettle.errors import LossInputError


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of one episode."""

    observation: Any
    action: Any
    reward: float
    log_prob: float
    value: float
    """The critic's word on what the step starts from."""
    done: bool
    """The step ended its episode: nothing comes after it."""
    episode: int
    next_value: float | None
    """Of a step that a limit cut its episode short at: the critic's word on where it would have gone on from."""


@dataclass(frozen=True, slots=True, eq=False)
class RolloutBatch:
    """The steps in order, as columns [N]."""

    observations: list[Any]
    actions: list[Any]
    rewards: Tensor
    log_probs: Tensor
    values: Tensor
    returns: Tensor
    advantages: Tensor


class RolloutBuffer:
    """Steps in the order they were made. Steps of different episodes are never joined, flagged or not."""

    def __init__(self, max_size: int | None = None) -> None:
        """Beyond ``max_size`` steps the oldest go; None keeps all."""
        self._steps: deque[Step] = deque(maxlen=max_size)
        self._credit: tuple[Doubles, Doubles] | None = None

    def __len__(self) -> int:
        return len(self._steps)

    def add(
        self,
        observation: Any,
        action: Any,
        reward: float,
        *,
        log_prob: float,
        value: float = 0.0,
        done: bool = False,
        episode: int = 0,
        next_value: float | None = None,
    ) -> None:
        """Append a step; ``next_value`` is what a truncated episode would have been worth from here on."""
        self._steps.append(Step(observation, action, reward, log_prob, value, done, episode, next_value))
        self._credit = None

    def compute_returns(self, gamma: float = 0.99, last_value: float = 0.0) -> Tensor:
        """``R_t = r_t + γ R_{t+1}`` within each episode [N]; ``last_value`` is what follows the last step."""
        _, returns = self._gae(gamma, 1.0, last_value)
        return torch.from_numpy(returns).float()

    def compute_gae(
        self, gamma: float = 0.99, gae_lambda: float = 0.95, last_value: float = 0.0, normalize: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Advantages [N], normalised if asked for, and returns [N] of the advantages as they were before that."""
        raw, returns = self._gae(gamma, gae_lambda, last_value)
        everywhere = np.ones(len(raw), np.float32)
        scaled = normalized([raw], [everywhere], [""], scope="batch" if normalize else "none")[0].astype(np.float64)
        self._credit = (scaled, returns)
        return torch.from_numpy(scaled).float(), torch.from_numpy(returns).float()

    def to_batch(self) -> RolloutBatch:
        """The steps with their credit.

        Raises:
            LossInputError: ``compute_gae`` has not been called since the last step was added.
        """
        if self._credit is None:
            raise LossInputError("the buffer has no advantages yet: call compute_gae after the last step is added")
        advantages, returns = self._credit
        return RolloutBatch(
            observations=[step.observation for step in self._steps],
            actions=[step.action for step in self._steps],
            rewards=self._column("reward"),
            log_probs=self._column("log_prob"),
            values=self._column("value"),
            returns=torch.from_numpy(returns).float(),
            advantages=torch.from_numpy(advantages).float(),
        )

    def to_dataset(self) -> Dataset[tuple[Tensor, ...]]:
        """For a ``DataLoader``: of each step its index, log-probability, value, return and advantage."""
        batch = self.to_batch()
        columns = (batch.log_probs, batch.values, batch.returns, batch.advantages)
        return TensorDataset(torch.arange(len(self)), *columns)

    def clear(self) -> None:
        """Forget every step."""
        self._steps.clear()
        self._credit = None

    def _gae(self, gamma: float, lam: float, last_value: float) -> tuple[Doubles, Doubles]:
        ends = list(self._ends(last_value))
        return gae(
            [step.reward for step in self._steps],
            [step.value for step in self._steps],
            next_values=[worth for worth, _ in ends],
            terminated=[step.done for step in self._steps],
            truncated=[cut for _, cut in ends],
            gamma=gamma,
            lam=lam,
        )

    def _ends(self, last_value: float) -> Iterator[tuple[float, bool]]:
        """For each step: the worth of where it leads, and whether its episode is cut short there."""
        steps = list(self._steps)
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if step.next_value is not None:
                yield step.next_value, True
            elif following is None:
                yield last_value, True
            elif following.episode != step.episode:
                yield 0.0, True
            else:
                yield following.value, False

    def _column(self, name: str) -> Tensor:
        return torch.tensor([getattr(step, name) for step in self._steps])
