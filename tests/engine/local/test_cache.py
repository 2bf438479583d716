"""The cache: memory that is handed on, slabs that grow, shelves that shrink."""

import pytest
import torch
from torch import Tensor

from fettle.engine.local.attention import Attention, UnsuitedError
from fettle.engine.local.cache import Pool, Shelf, Slabs, Structure, structure

LIKE = Structure(
    layers=2, heads=3, key_size=4, value_size=5, window=None, dtype=torch.float32, device=torch.device("cpu")
)


def numbered(tensor: Tensor) -> Tensor:
    return tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))


def test_memory_is_used_again_by_whatever_fits_and_is_finite() -> None:
    pool = Pool(most_bytes=1000)
    first = pool.taken((10, 5), LIKE)
    assert not first.any()
    pool.give(first)
    pool.taken((4, 0), LIKE)  # which needs none
    again = pool.taken((7, 7), LIKE)
    assert again.data_ptr() == first.data_ptr()
    assert pool.taken((2,), LIKE).data_ptr() != first.data_ptr()  # it is in use


def test_memory_that_nobody_uses_is_bounded() -> None:
    pool = Pool(most_bytes=400)
    held = [pool.taken((60,), LIKE) for _ in range(3)]
    for tensor in held:
        pool.give(tensor)
    assert pool.taken((60,), LIKE).data_ptr() == held[2].data_ptr()
    assert pool.taken((60,), LIKE).data_ptr() not in {tensor.data_ptr() for tensor in held}


def test_slabs_grow_with_what_they_hold_up_to_the_longest_row() -> None:
    slabs = Slabs(LIKE, Pool(0), limit=100)
    slabs.fit(2, 1)
    assert slabs.keys.shape == (2, 2, 64, 3, 4)
    before = numbered(slabs.keys).clone(), numbered(slabs.values).clone()
    slabs.fit(3, 65)
    assert slabs.columns == 100
    assert torch.equal(slabs.keys[:, :2, :64], before[0])
    assert torch.equal(slabs.values[:, :2, :64], before[1])
    slabs.move(torch.tensor([1]), torch.tensor([2]), 10)
    assert torch.equal(slabs.values[:, 2, :10], before[1][:, 1, :10])


def test_a_shelf_shrinks_to_the_prompts_that_are_left() -> None:
    shelf = Shelf([7, 8, 9], [3, 6, 5], LIKE, Pool(0))
    keys, values = numbered(shelf.keys).clone(), numbered(shelf.values).clone()
    assert shelf.tokens == 18
    smaller = shelf.only([0, 2])
    assert (smaller.prompts, smaller.lengths, smaller.tokens) == ([7, 9], [3, 5], 10)
    assert torch.equal(smaller.keys, keys[:, [0, 2], :5])
    assert torch.equal(smaller.values, values[:, [0, 2], :5])
    assert smaller.mask is not None
    assert (smaller.mask[:, 0, 0] == 0).sum(-1).tolist() == [3, 5]
    assert shelf.only([1]).mask is None


def test_what_a_shelf_keeps_starts_another() -> None:
    shelf = Shelf([0, 1], [4, 6], LIKE, Pool(0))
    numbered(shelf.keys), numbered(shelf.values)
    beginning = shelf.stretch(0, None)
    whole = shelf.stretch(1, beginning)  # what follows the first 4 tokens
    other = Shelf([5], [8], LIKE, Pool(0))
    assert other.put(0, whole) == 6
    assert torch.equal(other.keys[:, 0, :4], shelf.keys[:, 0, :4])
    assert torch.equal(other.values[:, 0, 4:6], shelf.values[:, 1, 4:6])


def test_layers_of_unlike_shape_are_refused() -> None:
    class Narrowing:
        """Its second layer has fewer key heads."""

        def logits(self, tokens: Tensor, positions: Tensor, attention: Attention, **_: object) -> Tensor:
            for layer, heads in enumerate((2, 1)):
                query, key = torch.zeros(1, 2, 8), torch.zeros(1, heads, 8)
                attention(layer, query, key, key, scale=1.0, window=None)
            return torch.zeros(1, 9)

    with pytest.raises(UnsuitedError, match="unlike shapes"):
        structure(Narrowing(), torch.device("cpu"))
