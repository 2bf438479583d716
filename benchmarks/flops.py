"""Floating-point operations of the least work that a batch needs: the floor under a row's time.

A matrix product of [m, k] and [k, n] is 2 m k n. Each distinct prompt is counted once, however many answer it; nothing
is computed twice, no padding is computed at all. A backward pass costs twice the forward.
"""

from collections.abc import Sequence

from benchmarks.models import Size


def layers(size: Size, tokens: int, attended: int) -> float:
    """Forward through all layers: ``tokens`` rows, which attend to ``attended`` keys in all."""
    width = size.heads * size.head_dim
    each = size.hidden * (2 * width + 2 * size.kv_heads * size.head_dim + 3 * size.intermediate)
    return size.layers * (2.0 * tokens * each + 4.0 * attended * width)


def head(size: Size, tokens: int) -> float:
    """Forward through the head, for so many tokens."""
    return 2.0 * tokens * size.hidden * size.vocabulary


def answered(size: Size, prompts: Sequence[int], group: int, replies: Sequence[int]) -> float:
    """Forward over prompts of these lengths, each run once, and the replies of each group after it."""
    tokens = sum(prompts) + sum(replies)
    attended = sum(map(_causal, prompts))
    attended += sum(reply * prompts[index // group] + _causal(reply) for index, reply in enumerate(replies))
    return layers(size, tokens, attended) + head(size, sum(replies))


def trained(size: Size, prompts: Sequence[int], group: int, replies: Sequence[int]) -> float:
    """The same with a gradient."""
    return 3 * answered(size, prompts, group, replies)


def _causal(length: int) -> int:
    return length * (length + 1) // 2
