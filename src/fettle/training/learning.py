"""What a batch does to the policy: shaped, scored, credited, and then its optimizer steps."""

import asyncio
import time
from collections.abc import Sequence

from fettle.config import RLRun
from fettle.engine import Policy, Sampler
from fettle.training.credit import credited, scored, shaped, teaching, weighted
from fettle.training.drawing import Batch
from fettle.training.metrics import Outcome, batch_row, credit_row, divergence, policy_row
from fettle.training.schedule import learning_rate
from fettle.types import Datum


class Learner:
    """The policy, and what it learns with."""

    def __init__(self, run: RLRun, policy: Policy, *, reference: Sampler | None = None) -> None:
        self.policy = policy
        self._run = run
        self._reference = reference

    async def learn(self, step: int, batch: Batch) -> dict[str, float]:
        """Learn from one batch; returns the step's metrics."""
        started = time.perf_counter()
        groups = [shaped(g, self._run) for g in batch.groups]
        # Whatever is measured of the batch is measured before the update, in one go for all minibatches.
        data = await scored(groups, self._reference)
        data = credited(groups, data, self._run)
        outcomes = await self._updated(step, data)
        return {
            **batch_row(batch, groups),
            **divergence(data),
            **policy_row(outcomes),
            **credit_row(data),
            "policy/learning_rate": self._rate(step * self._run.minibatches),
            "policy/lag": float(outcomes[0][1].policy_version - 1 - batch.policy_version),
            "time/sample": batch.seconds,
            "time/train": time.perf_counter() - started,
        }

    async def _updated(self, step: int, data: Sequence[Sequence[Datum]]) -> list[Outcome]:
        """The optimizer steps of a batch, one a minibatch of groups."""
        share = -(-len(data) // self._run.minibatches)
        parts = [data[first : first + share] for first in range(0, len(data), share)]
        pending = [self._update(part, step * self._run.minibatches + number) for number, part in enumerate(parts)]
        return await asyncio.gather(*pending)

    def _update(self, part: Sequence[Sequence[Datum]], step: int) -> "asyncio.Future[Outcome]":
        """One optimizer step, submitted at once: the engine keeps the order, and need not wait for us."""
        adam = self._run.optimizer.model_copy(update={"learning_rate": self._rate(step)})
        ready = teaching(weighted(part, self._run), self._run.loss)
        result = asyncio.ensure_future(self.policy.forward_backward(ready, self._run.loss))
        stepped = asyncio.ensure_future(self.policy.optim_step(adam))
        return asyncio.gather(result, stepped)

    def _rate(self, step: int) -> float:
        steps = self._run.steps * self._run.minibatches
        return learning_rate(self._run.schedule, self._run.optimizer.learning_rate, step=step, steps=steps)
