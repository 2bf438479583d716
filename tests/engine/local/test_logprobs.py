"""Chunked log-probabilities: right, differentiable, and small."""

import pytest
import torch
from torch import Tensor

from fettle.engine.local import logprobs as module
from fettle.engine.local.logprobs import logprobs_of_logits, token_logprobs


def case(dtype: torch.dtype = torch.float64, n: int = 7, width: int = 5, vocabulary: int = 11) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, width, generator=random, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=random, dtype=dtype, requires_grad=True)
    bias = torch.randn(vocabulary, generator=random, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocabulary, (n,), generator=random)
    temperature = torch.rand(n, generator=random, dtype=dtype) + 0.5
    return hidden, weight, bias, targets, temperature


@pytest.mark.parametrize("chunk", [11, 33, 1 << 20], ids=["a row at a time", "three rows", "all at once"])
def test_values_are_those_of_the_full_softmax(monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    hidden, weight, bias, targets, temperature = case()
    expected = logprobs_of_logits(hidden @ weight.T + bias, targets, temperature)
    for found, wanted in zip(token_logprobs(hidden, weight, bias, targets, temperature), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("chunk", [11, 33, 1 << 20])
def test_gradients_match_finite_differences(monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    hidden, weight, bias, targets, temperature = case()
    assert torch.autograd.gradcheck(
        lambda h, w, b: token_logprobs(h, w, b, targets, temperature), (hidden, weight, bias)
    )


def test_gradient_of_the_log_probability_alone():
    hidden, weight, _, targets, temperature = case()
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, None, targets, temperature)[0], (hidden, weight))


@pytest.mark.parametrize("chunk", [11, 33, 1 << 20])
@pytest.mark.parametrize("outputs", [slice(0, 1), slice(1, 2), slice(0, 2)], ids=["logprobs", "entropy", "both"])
def test_under_a_frozen_head_gradients_are_the_same(monkeypatch, chunk, outputs):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    hidden, weight, bias, targets, temperature = case()
    frozen = weight.detach(), bias.detach()
    assert torch.autograd.gradcheck(lambda h: token_logprobs(h, *frozen, targets, temperature)[outputs], (hidden,))


def test_under_a_frozen_head_the_backward_pass_makes_no_logits_again():
    hidden, weight, _, targets, temperature = case(n=6)
    logprobs, _ = token_logprobs(hidden, weight.detach(), None, targets, temperature)
    with torch.profiler.profile() as seen:
        logprobs.sum().backward()
    assert not [event.name for event in seen.events() if event.name in ("aten::mm", "aten::exp_")]


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, _, targets, temperature = case()
    frozen = weight.detach()
    token_logprobs(hidden, frozen, None, targets, temperature)[0].sum().backward()
    assert frozen.grad is None
    assert hidden.grad is not None


def test_no_tensor_of_tokens_by_vocabulary_is_ever_held():
    """Counted, not timed: the largest tensor that forward and backward make, at a vocabulary of 150 000."""
    n, vocabulary, width = 2048, 150_000, 16
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, width, generator=random, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=random)
    targets = torch.randint(vocabulary, (n,), generator=random)
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor))
            return out

    with Sizes():
        logprobs, _ = token_logprobs(hidden, weight, None, targets, torch.ones(n))
        logprobs.sum().backward()
    assert max(sizes) <= max(module.CHUNK_ELEMENTS, vocabulary * width)
    assert max(sizes) < n * vocabulary / 5


def test_bfloat16_is_summed_in_float32():
    hidden, weight, _, targets, temperature = case(torch.float32, n=64, width=32, vocabulary=512)
    exact, _ = token_logprobs(hidden, weight, None, targets, temperature)
    rounded, _ = token_logprobs(hidden.bfloat16(), weight, None, targets, temperature)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.15, rtol=0.05)


def test_under_autocast_forward_and_backward_make_the_same_logits():
    """The error against float32 is that of a plain bfloat16 head, no more."""
    hidden, weight, _, targets, temperature = case(torch.float32, n=64, width=32, vocabulary=512)

    def gradient(head, *, autocast: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = head().sum()
        return torch.autograd.grad(total, hidden)[0]

    exact = gradient(lambda: token_logprobs(hidden, weight, None, targets, temperature)[0], autocast=False)
    ours = gradient(lambda: token_logprobs(hidden, weight, None, targets, temperature)[0], autocast=True)
    plain = gradient(
        lambda: logprobs_of_logits(torch.nn.functional.linear(hidden, weight), targets, temperature)[0], autocast=True
    )
    assert (ours - exact).norm() <= 1.5 * (plain - exact).norm()
