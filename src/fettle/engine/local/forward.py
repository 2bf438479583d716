"""Running tokens through a model with an attention that the caller brings: what every way of sampling is built on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from fettle.engine.local.attention import Attention, attending
from fettle.engine.local.lora import Adapter


@dataclass(frozen=True, slots=True)
class Voice:
    """Whose weights a request is drawn from: the model's own, or others in their place, and an adapter beside them."""

    version: int
    adapter: Adapter | None = None
    tensors: Mapping[str, Tensor] | None = None
    """Values by parameter name, in the place of the model's own: a policy as it was."""


@dataclass(frozen=True, slots=True)
class Carried:
    """An adapter, and the tokens of a forward pass that it is for."""

    adapter: Adapter
    rows: Tensor | None
    """Indices [n] into the N tokens; None for all of them."""


class Forward(Protocol):
    """One model's arithmetic, without gradients."""

    def logits(
        self,
        tokens: Tensor,
        positions: Tensor,
        attention: Attention,
        *,
        wanted: Tensor | None = None,
        carried: Sequence[Carried] = (),
    ) -> Tensor:
        """Logits [n, V] that follow the tokens at ``wanted`` [n], or all N of them.

        Args:
            tokens: [N], of any number of sequences, end to end.
            positions: [N], of each token in its own sequence.
            attention: what each token attends to.
            wanted: indices into the N tokens.
            carried: adapters, which no token has two of.
        """
        ...


class DrivenForward:
    """Satisfies ``Forward`` through transformers' own modules. Adapters are those in the model's slots."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def logits(
        self,
        tokens: Tensor,
        positions: Tensor,
        attention: Attention,
        *,
        wanted: Tensor | None = None,
        carried: Sequence[Carried] = (),
    ) -> Tensor:
        """See ``Forward``; ``carried`` must be empty."""
        if carried:
            raise ValueError("the adapters of transformers' own modules are put into their slots")
        with attending(self._model, attention):
            output: Tensor = self._model(
                input_ids=tokens[None],
                position_ids=positions[None],
                use_cache=False,
                logits_to_keep=0 if wanted is None else wanted,
            ).logits
        return output[0]
