"""Attention in parts: each equal to plain attention, and together to attention over all keys."""

import pytest
import torch

from fettle.engine.local.parts import Part, merged, part, plain

B, HEADS, QUERIES, SIZE = 3, 2, 5, 8


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("way", ["kernel", "plain"])
def test_parts_merge_to_attention_over_all_keys(way: str) -> None:
    query = random(B, HEADS, QUERIES, SIZE, seed=0)
    keys = [random(B, HEADS, length, SIZE, seed=length) for length in (7, 3)]
    values = [random(B, HEADS, length, SIZE, seed=9 + length) for length in (7, 3)]
    lengths = torch.tensor([7, 4, 1])
    mask = torch.zeros(B, 1, 1, 7, dtype=torch.float64)
    mask.masked_fill_((torch.arange(7) >= lengths[:, None])[:, None, None], float("-inf"))
    attended = part if way == "kernel" else by_plain_operations
    one = attended(query, keys[0], values[0], scale=0.3, mask=mask)
    other = attended(query, keys[1], values[1], scale=0.3)
    for row, length in enumerate(lengths.tolist()):
        key = torch.cat([keys[0][row, :, :length], keys[1][row]], 1)
        value = torch.cat([values[0][row, :, :length], values[1][row]], 1)
        expected = (0.3 * query[row] @ key.transpose(1, 2)).softmax(-1) @ value
        torch.testing.assert_close(merged(one, other)[row].transpose(0, 1), expected, atol=1e-6, rtol=0)


def by_plain_operations(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, mask: torch.Tensor | None = None
) -> Part:
    out, logsumexp = plain(query, key, value, scale=scale, mask=mask)
    return Part(out.transpose(1, 2), logsumexp.transpose(1, 2))
