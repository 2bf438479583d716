"""Attention within trees is plain causal attention of each sequence, forwards and backwards."""

import pytest
import torch
from torch import Tensor

from fettle.engine.local.tree_attention import Branches, TreeAttention

GROUPS = [
    [(0, (5,))],
    [(6, (3, 1, 4))],
    [(1, (1,)), (40, (0, 2)), (0, (7,)), (3, (0,)), (2, (1, 30, 5, 1, 1, 2, 60, 9))],
]


@pytest.mark.parametrize("shapes", GROUPS)
@pytest.mark.parametrize("window", [None, 4, 1000])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_it_is_the_attention_of_each_sequence_alone(shapes, window, key_heads):
    trees = branches(shapes)
    inputs, asked = states(trees, key_heads)
    found = gradients(TreeAttention(trees, torch.device("cpu")), inputs, asked, window)
    expected = gradients(Alone(trees), inputs, asked, window)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shapes", GROUPS)
def test_with_a_mask_it_is_the_same(shapes):
    trees = branches(shapes)
    inputs, asked = states(trees, 2)
    attention = TreeAttention(trees, torch.device("cpu"))
    masked = lambda layer, q, k, v, *, scale, window: attention._masked(q, k, v, scale, 1000)  # noqa: E731
    for got, wanted in zip(
        gradients(masked, inputs, asked, None), gradients(attention, inputs, asked, None), strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


def test_values_of_another_width_than_keys_are_attended_to():
    trees = branches([(3, (2, 4))])
    query, key, value = states(trees, 4)[0]
    attention = TreeAttention(trees, torch.device("cpu"))
    wide = attention(0, query, key, torch.cat([value, value], -1), scale=0.5, window=None)
    narrow = attention(0, query, key, value, scale=0.5, window=None)
    torch.testing.assert_close(wide, torch.cat([narrow, narrow], -1))


def test_bfloat16_is_as_good_as_its_bits():
    trees = branches(GROUPS[2])
    inputs, asked = states(trees, 2)
    attention = TreeAttention(trees, torch.device("cpu"))
    inputs, asked = [x.bfloat16() for x in inputs], asked.bfloat16()
    rough = gradients(attention, inputs, asked, None)
    exact = gradients(attention, [x.double() for x in inputs], asked.double(), None)
    for got, wanted in zip(rough, exact, strict=True):
        assert (got.double() - wanted).abs().max() < 0.01 * wanted.abs().max()


class Alone:
    """Every sequence by itself, the softmax written out."""

    def __init__(self, trees: list[Branches]) -> None:
        self._trees = trees

    def __call__(self, layer, query, key, value, *, scale, window):
        out = torch.zeros_like(query)
        for tree in self._trees:
            beginning = torch.arange(tree.start, tree.fork)
            out[beginning] = self._of(query, key, value, beginning, scale, window)
            for start, length in tree.parts[1 if tree.shared else 0 :]:
                tokens = torch.cat([beginning, torch.arange(start, start + length)])
                out[tokens[len(beginning) :]] = self._of(query, key, value, tokens, scale, window)[len(beginning) :]
        return out

    def _of(self, query, key, value, tokens, scale, window):
        repeat = query.shape[1] // key.shape[1]
        key, value = (x[tokens].repeat_interleave(repeat, 1) for x in (key, value))
        products = torch.einsum("qhd,khd->hqk", query[tokens], key) * scale
        back = torch.arange(len(tokens))[:, None] - torch.arange(len(tokens))
        hidden = (back < 0) | (back >= (window or len(tokens)))
        return torch.einsum("hqk,khd->qhd", products.masked_fill(hidden, -torch.inf).softmax(-1), value)


def branches(shapes: list[tuple[int, tuple[int, ...]]]) -> list[Branches]:
    found: list[Branches] = []
    for shared, own in shapes:
        found.append(Branches(found[-1].end if found else 0, shared, own))
    return found


def states(trees: list[Branches], key_heads: int) -> tuple[list[Tensor], Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = [(trees[-1].end, heads, 8) for heads in (4, key_heads, key_heads)]
    inputs = [3 * torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    return inputs, torch.randn(shapes[0], generator=random, dtype=torch.float64)


def gradients(attention, inputs: list[Tensor], asked: Tensor, window: int | None) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = attention(0, *leaves, scale=0.7, window=window)
    return out.detach(), *torch.autograd.grad(out, leaves, asked)
