"""The likelihood of the trained tokens, and of nothing else."""

import math

import pytest
import torch

from fettle.config import CausalLM
from fettle.losses import evaluate


def test_the_loss_is_the_negative_log_likelihood_of_each_token():
    logprobs = torch.log(torch.tensor([[0.9, 0.5, 0.25]], dtype=torch.float64))
    values, metrics = evaluate(CausalLM(), {"logprobs": logprobs}, {"loss_mask": torch.tensor([[0.0, 1.0, 1.0]])})
    assert values[0].tolist() == pytest.approx([0.0, math.log(2), math.log(4)])
    assert metrics["nll"][0].tolist() == values[0].tolist()


def test_padding_and_the_prompts_tokens_change_neither_loss_nor_gradient():
    def trained(logprobs: list[float], mask: list[float]) -> tuple[float, list[float]]:
        leaf = torch.tensor([logprobs], dtype=torch.float64, requires_grad=True)
        loss_mask = torch.tensor([mask], dtype=torch.float64)
        values, _ = evaluate(CausalLM(), {"logprobs": leaf}, {"loss_mask": loss_mask})
        total = (values * loss_mask).sum()
        return total.item(), torch.autograd.grad(total, leaf)[0][0].tolist()

    loss, gradient = trained([-0.3, -1.0, -2.0], [0, 1, 1])
    assert trained([-9.0, -1.0, -2.0], [0, 1, 1]) == (loss, gradient)
    assert trained([-0.3, -1.0, -2.0, *[-5.0] * 20], [0, 1, 1, *[0] * 20]) == (loss, gradient + [0.0] * 20)
