"""Running tokens through a model with an attention that the caller brings: what every way of sampling is built on."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from fettle.engine.local.attention import Attention, attending
from fettle.engine.local.lora import Adapter, Slots


@dataclass(frozen=True, slots=True)
class Voice:
    """Whose weights a request is drawn from: the model's own, or others in their place, and an adapter beside them."""

    version: int
    adapter: Adapter | None = None
    tensors: Mapping[str, Tensor] | None = None
    """Values by parameter name, in the place of the model's own: a policy as it was."""
    owner: Hashable | None = None
    """Voices of one owner and version have the same weights; with none, nothing that is computed is kept."""

    @property
    def whose(self) -> tuple[Hashable, int]:
        """What tells its weights from those of others."""
        return (id(self.adapter) if self.owner is None else self.owner), self.version


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


@contextmanager
def hosted(module: PreTrainedModel, slots: Slots, voice: Voice) -> Iterator[None]:
    """Transformers' own modules with the weights of a voice in them."""
    parameters = dict(module.named_parameters()) if voice.tensors else {}
    own = {name: parameters[name].data for name in voice.tensors or {} if name in parameters}
    try:
        for name in own:
            parameters[name].data = (voice.tensors or {})[name]
        with slots.holding(voice.adapter):
            yield
    finally:
        for name, value in own.items():
            parameters[name].data = value
