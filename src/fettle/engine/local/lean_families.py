"""The architectures that have a lean forward: where their parts are found, and what sets their arithmetic apart.

What a config may ask for beyond this table is refused, so that such a model takes the path through transformers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn
from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture. Paths are relative to a layer, or to the trunk; an empty one says that there is no such part."""

    causal_lm: str
    """Name of transformers' class."""
    trunk: str = "model"
    embedding: str = "embed_tokens"
    positions: str = ""
    """Learned positions; without them, positions are rotations."""
    layers: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    query_key_value: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    """One after the other they give the queries, keys and values of a token."""
    output: str = "self_attn.o_proj"
    widening: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    narrowing: str = "mlp.down_proj"
    before_attention: str = "input_layernorm"
    after_attention: str = ""
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str = ""
    head_norms: tuple[str, ...] = ()
    """Of the queries and the keys of each head."""
    norm: Literal["rms", "rms from one", "mean and variance"] = "rms"
    """``rms from one``: by the weight plus one, in float32."""
    epsilon: str = "rms_norm_eps"
    activation: str = "hidden_act"
    gated: bool = True
    """Whether the first half of what is widened, activated, multiplies the second."""
    scaled_embedding: bool = False
    window: Literal["", "everywhere", "by layer"] = ""
    """Which layers see only the last ``sliding_window`` tokens."""
    rope_by_layer_type: bool = False


_GEMMA = partial(Family, norm="rms from one", scaled_embedding=True)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": Family("LlamaForCausalLM"),
        "mistral": Family("MistralForCausalLM", window="everywhere"),
        "qwen2": Family("Qwen2ForCausalLM", window="by layer"),
        "qwen3": Family("Qwen3ForCausalLM", window="by layer", head_norms=("self_attn.q_norm", "self_attn.k_norm")),
        "gemma": _GEMMA("GemmaForCausalLM"),
        "gemma3_text": _GEMMA(
            "Gemma3ForCausalLM",
            head_norms=("self_attn.q_norm", "self_attn.k_norm"),
            after_attention="post_attention_layernorm",
            before_mlp="pre_feedforward_layernorm",
            after_mlp="post_feedforward_layernorm",
            activation="hidden_activation",
            window="by layer",
            rope_by_layer_type=True,
        ),
        "phi3": Family(
            "Phi3ForCausalLM",
            query_key_value=("self_attn.qkv_proj",),
            widening=("mlp.gate_up_proj",),
            window="everywhere",
        ),
        "gpt2": Family(
            "GPT2LMHeadModel",
            trunk="transformer",
            embedding="wte",
            positions="wpe",
            layers="h",
            final_norm="ln_f",
            attention="attn",
            query_key_value=("attn.c_attn",),
            output="attn.c_proj",
            widening=("mlp.c_fc",),
            narrowing="mlp.c_proj",
            before_attention="ln_1",
            before_mlp="ln_2",
            norm="mean and variance",
            epsilon="layer_norm_epsilon",
            activation="activation_function",
            gated=False,
        ),
    }
)
"""By transformers' ``model_type``."""

_gelu_tanh = partial(nn.functional.gelu, approximate="tanh")

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "silu": nn.functional.silu,
        "swish": nn.functional.silu,
        "gelu": nn.functional.gelu,
        "gelu_new": _gelu_tanh,
        "gelu_pytorch_tanh": _gelu_tanh,
        "relu": nn.functional.relu,
    }
)
"""By transformers' names."""

ROPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotations whose angle at a position depends on nothing else: not on how long the sequence is."""

WINDOWED = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers that a window tells apart."""

UNHANDLED = (
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "use_bidirectional_attention",
    "add_cross_attention",
    "quantization_config",
)
"""Settings that change the arithmetic where they are set at all."""


def lean_family(config: PretrainedConfig) -> str:
    """The row of ``FAMILIES`` that does everything ``config`` asks for; empty if none does."""
    name = str(config.model_type)
    family = FAMILIES.get(name)
    if family is None or any(getattr(config, setting, None) for setting in UNHANDLED):
        return ""
    if getattr(config, family.activation) not in ACTIVATIONS:
        return ""
    if family.window == "by layer" and not WINDOWED.issuperset(config.layer_types):
        return ""
    return name if family.positions or _rotates_plainly(config, family) else ""


def window(config: PretrainedConfig, family: Family, layer: int) -> int | None:
    """How many tokens back a token of ``layer`` sees, itself included; None for all."""
    if not family.window or (family.window == "by layer" and config.layer_types[layer] != "sliding_attention"):
        return None
    tokens: int | None = config.sliding_window
    return tokens


def _rotates_plainly(config: PretrainedConfig, family: Family) -> bool:
    rope = config.rope_parameters
    settings = [rope.get(kind) for kind in set(config.layer_types)] if family.rope_by_layer_type else [rope]
    return all(
        each and each["rope_type"] in ROPES and each.get("partial_rotary_factor", 1.0) == 1.0 for each in settings
    )
