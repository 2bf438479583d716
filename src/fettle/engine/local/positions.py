"""Where tokens stand, in architectures whose positions mean other things in longer forward passes."""

from typing import Any

from transformers import PretrainedConfig

STEADY = frozenset({"default", "linear", "llama3", "yarn", "proportional"})
"""Kinds of rotary positions in which the same number always means the same."""


def unsteady(config: PretrainedConfig) -> str:
    """The kind of positions that depends on how long a forward pass is; empty where there is none."""
    return next((rope["rope_type"] for rope in _ropes(config) if rope["rope_type"] not in STEADY), "")


def steady_length(config: PretrainedConfig) -> int | None:
    """Tokens beyond which a forward pass places all of its tokens in another way; None where that never comes.

    ``longrope`` has one set of frequencies for passes of up to so many tokens and another for longer ones (Ding et
    al., 2024, arXiv:2402.13753). What ``dynamic`` changes, it changes beyond the context, which no sequence reaches.
    """
    lengths = [rope["original_max_position_embeddings"] for rope in _ropes(config) if rope["rope_type"] == "longrope"]
    return min(lengths, default=None)


def _ropes(config: PretrainedConfig) -> list[dict[str, Any]]:
    """Settings of rotary positions; some architectures have them by kind of layer."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return [each for each in (rope, *rope.values()) if isinstance(each, dict) and "rope_type" in each]
