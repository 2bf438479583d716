"""Attention of our own under transformers' models: whoever lays out a forward pass says what its tokens attend to.

transformers looks attention up by name at every call. Under ``attending`` that name leads here, and each layer's
queries, keys and values are handed to the attention of the forward pass at hand; outside it, nothing is changed.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fettle.engine.local.positions import unsteady

NAME = "fettle"

EXTRAS = ("softcap", "s_aux", "position_bias")
"""What some architectures add to plain attention, which no path of ours computes."""

FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What transformers raises where an architecture does not suit."""


class Attention(Protocol):
    """What the N tokens of one forward pass attend to."""

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """One layer's attention.

        Args:
            layer: from 0 up.
            query: [N, heads, size].
            key: [N, key heads, size]; query head h reads key head ``h // (heads / key heads)``.
            value: [N, key heads, size].
            scale: what products of queries and keys are multiplied by.
            window: how many tokens back a token sees, itself included; None for all.

        Returns:
            [N, heads, size].
        """
        ...


class UnsuitedError(Exception):
    """Raised inside a forward pass: this architecture's attention is none that we compute."""


_current: ContextVar[Attention] = ContextVar("attention")


@contextmanager
def attending(model: PreTrainedModel, attention: Attention) -> Iterator[None]:
    """Inside, every layer of ``model`` attends by ``attention``; its input is one row of N tokens."""
    before = model.config._attn_implementation
    token = _current.set(attention)
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(before)
        _current.reset(token)


def undrivable(config: PretrainedConfig) -> str:
    """Why the attention of this architecture cannot be driven, in words; empty where it can.

    Tried on a model without storage, so it costs no memory whatever the size. Weights play no part.
    """
    if kind := unsteady(config):
        return f"its positions ({kind}) depend on the longest sequence of a forward pass"
    config = copy.deepcopy(config)
    # Some look for it among the tokens, which have no values here; some configs let nobody take it out.
    vars(config)["pad_token_id"] = None
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    except (*FAILURES, ImportError) as error:
        return f"no causal language model can be made of a {type(config).__name__} ({_first_line(error)})"
    if not model._can_set_attn_implementation():
        return f"{type(model).__name__} has an attention of its own, which cannot be replaced"
    seen: list[int] = []
    windows: list[int | None] = []

    def recorder(layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
        seen.append(layer)
        windows.append(window)
        return query.new_empty(*query.shape[:2], value.shape[-1])

    tokens = torch.zeros(1, 4, dtype=torch.long, device="meta")
    try:
        with torch.no_grad(), attending(model, recorder):
            model(input_ids=tokens, position_ids=torch.arange(4, device="meta")[None], use_cache=False)
    except UnsuitedError as reason:
        return str(reason)
    except FAILURES as error:
        return f"{type(model).__name__} fails under an attention of ours ({_first_line(error)})"
    text = config.get_text_config()
    if seen != list(range(text.num_hidden_layers)):
        return f"of its {text.num_hidden_layers} layers, {len(set(seen))} attend by the interface that can be driven"
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * len(windows)
    windowed = any(kind != "full_attention" and window is None for kind, window in zip(kinds, windows, strict=True))
    if windowed or (getattr(text, "sliding_window", None) and not any(windows) and "layer_types" not in vars(text)):
        return f"{type(model).__name__} looks back through a window that its attention is not told of"
    return ""


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """What transformers calls: query [1, heads, N, size]; gives [1, N, heads, size]."""
    for extra in EXTRAS:
        if others.get(extra) is not None:
            raise UnsuitedError(f"the attention of {type(module).__name__} has a {extra}")
    if attention_mask is not None or not getattr(module, "is_causal", True):
        raise UnsuitedError(f"{type(module).__name__} attends to more than what came before")
    out = _current.get()(
        int(module.layer_idx),  # type: ignore[arg-type]
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
    )
    return out[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
