"""Demonstrations that are learned from in every step, beside the rewards (hybrid SFT and RL)."""

from collections.abc import Mapping, Sequence

import numpy as np

from fettle.chat import Template
from fettle.config import CausalLM, Rehearsal
from fettle.data import Conversation, tools_of
from fettle.engine import Policy
from fettle.errors import DataError
from fettle.losses.reduce import token_mean
from fettle.training.offline import Order
from fettle.types import Datum, datum


class Rehearser:
    """Conversations, and how much of them a step goes through.

    Raises:
        DataError: there are none.
    """

    def __init__(
        self, settings: Rehearsal, conversations: Sequence[Conversation], template: Template, *, seed: int
    ) -> None:
        if not conversations:
            raise DataError("there is no conversation to rehearse: see that rehearsal.data holds some")
        self._settings = settings
        self._conversations = conversations
        self._template = template
        self._order = Order(len(conversations), seed)

    def batch(self, step: int) -> list[Datum]:
        """The conversations of one step, each once an epoch; which they are depends on the seed and the step alone.

        Their weights make the sum over tokens the mean, times the coefficient.
        """
        chosen = self._order.of_batch(step, self._settings.batch_size)
        talks = [self._conversations[index] for index in chosen]
        rows = [self._template.conversation(talk, tools_of(talk)) for talk in talks]
        weights = token_mean([np.asarray(mask, np.float32) for _, mask in rows])
        return [
            datum(tokens, mask, weights=self._settings.coefficient * weight)
            for (tokens, mask), weight in zip(rows, weights, strict=True)
        ]

    async def add(self, policy: Policy, step: int) -> Mapping[str, float]:
        """Add the gradient of the step's conversations to that of its first optimizer step."""
        result = await policy.forward_backward(self.batch(step), CausalLM())
        return {"rehearsal/loss": result.loss / self._settings.coefficient}
