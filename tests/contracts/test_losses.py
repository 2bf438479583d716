"""What every loss must satisfy, whoever wrote it. A new row of ``LOSSES`` is tested here without a line more."""

import inspect
from collections.abc import Mapping
from typing import get_args

import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor

from fettle.config import KL, LossConfig
from fettle.errors import LossInputError
from fettle.losses import LOSSES, evaluate, required_inputs
from fettle.losses.reduce import REDUCTIONS
from fettle.losses.table import Contract

B, T = 3, 6
EXTREME = 1e30
"""Finite, and far past what float32 can exponentiate."""

Inputs = dict[str, Tensor]

PLAIN: dict[str, LossConfig] = {name: row.settings() for name, row in LOSSES.items()}
WITH_KL: dict[str, LossConfig] = {
    f"{name}+{estimator}": row.settings(kl=KL(estimator=estimator))
    for name, row in LOSSES.items()
    if "kl" in row.settings.model_fields
    for estimator in ("k2", "k3")
}
EVERY = PLAIN | WITH_KL


def signed(contract: Contract) -> list[str]:
    return [name for name, row in LOSSES.items() if contract in row.contracts]


def every_loss():
    return pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)


def losses_that_sign(contract: Contract):
    names = signed(contract)
    return pytest.mark.parametrize("config", [PLAIN[name] for name in names], ids=names)


def batch(seed: int = 0, *, spread: float = 0.3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Inputs]:
    """Log-probabilities, and every stream a loss may read. The sequences have 6, 4 and 3 tokens."""
    random = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(B, T, generator=random, dtype=dtype)

    logprobs = -0.1 - torch.rand(B, T, generator=random, dtype=dtype)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0]], dtype=dtype)
    inputs = {
        "sampling_logprobs": logprobs + spread * normal(),
        "reference_logprobs": logprobs + spread * normal(),
        "advantages": normal(),
        "loss_mask": mask,
    }
    return logprobs.requires_grad_(), inputs


def weights(inputs: Mapping[str, Tensor], reduction: str = "sequence_mean") -> Tensor:
    masks = [row.numpy().astype(np.float32) for row in inputs["loss_mask"]]
    settings = {"length": 5} if reduction == "fixed_length" else {}
    return torch.tensor(np.array(REDUCTIONS[reduction](masks, **settings)), dtype=inputs["loss_mask"].dtype)


def total(
    config: LossConfig, logprobs: Tensor, inputs: Mapping[str, Tensor], reduction: str = "sequence_mean"
) -> Tensor:
    return (evaluate(config, logprobs, inputs)[0] * weights(inputs, reduction)).sum()


def gradient(
    config: LossConfig, logprobs: Tensor, inputs: Mapping[str, Tensor], reduction: str = "sequence_mean"
) -> Tensor:
    return torch.autograd.grad(total(config, logprobs, inputs, reduction), logprobs)[0]


def disturbed(values: Tensor, mask: Tensor, amount: float) -> Tensor:
    """Other numbers wherever nothing is trained on; both signs, so that differences are extreme too."""
    signs = torch.tensor([1.0, -1.0], dtype=values.dtype).repeat(B, T // 2)
    return torch.where(mask > 0, values.detach(), amount * signs)


def test_the_table_has_one_row_for_each_type_of_settings():
    kinds = get_args(get_args(LossConfig)[0])
    assert {row.settings for row in LOSSES.values()} == set(kinds)
    assert all(row.settings().type == name for name, row in LOSSES.items())


def test_every_contract_is_one_that_is_tested_here():
    assert set().union(*(row.contracts for row in LOSSES.values())) == set(get_args(Contract))


@pytest.mark.parametrize("name", LOSSES)
def test_a_function_takes_its_inputs_and_its_settings_by_keyword_with_the_same_defaults(name):
    row = LOSSES[name]
    settings = {field: value for field, value in row.settings() if field not in {"type", "kl"}}
    keywords = [p for p in inspect.signature(row.function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [p.name for p in keywords] == [*row.inputs, *settings]
    assert {p.name: p.default for p in keywords if p.default is not p.empty} == settings


@every_loss()
def test_a_loss_is_one_value_a_token(config):
    logprobs, inputs = batch()
    assert evaluate(config, logprobs, inputs)[0].shape == (B, T)


@every_loss()
def test_every_declared_metric_is_reported_detached_finite_and_one_a_token(config):
    logprobs, inputs = batch()
    inputs = {name: disturbed(values, inputs["loss_mask"], EXTREME) for name, values in inputs.items()}
    metrics = evaluate(config, logprobs, inputs)[1]
    kl = getattr(config, "kl", None)
    assert set(metrics) == {*LOSSES[config.type].metrics, *([f"kl_{kl.estimator}"] if kl else [])}
    for values in metrics.values():
        assert values.shape == (B, T)
        assert not values.requires_grad
        assert values.isfinite().all()
        assert values.dtype == logprobs.dtype


@every_loss()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_masked_tokens_change_nothing_in_value_or_gradient(config, dtype):
    logprobs, inputs = batch(dtype=dtype)
    mask = inputs["loss_mask"]
    others = {name: disturbed(values, mask, EXTREME) for name, values in inputs.items()} | {"loss_mask": mask}
    elsewhere = disturbed(logprobs, mask, EXTREME).requires_grad_()
    assert torch.equal(total(config, logprobs, inputs), total(config, elsewhere, others))
    changed = gradient(config, elsewhere, others)
    assert torch.equal(gradient(config, logprobs, inputs), changed)
    assert not changed[mask == 0].any()


@every_loss()
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_micro_batches_sum_to_the_batch(config, reduction):
    logprobs, inputs = batch()
    whole, share = total(config, logprobs, inputs, reduction), weights(inputs, reduction)
    lengths = [6, 4, 3]
    for rows in ([[0], [1], [2]], [[0, 2], [1]], [[2, 1], [0]]):
        parts = torch.zeros((), dtype=logprobs.dtype)
        for part in rows:
            end = max(lengths[row] for row in part)  # a micro-batch is only as long as its longest sequence
            cut = {name: values[part, :end] for name, values in inputs.items()}
            parts = parts + (evaluate(config, logprobs[part, :end], cut)[0] * share[part, :end]).sum()
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


@every_loss()
@pytest.mark.parametrize("spread", [0.3, 1e-4], ids=["far", "near"])
def test_the_gradient_is_that_of_finite_differences(config, spread):
    logprobs, inputs = batch(3, spread=spread)
    if config.type == "cispo":  # its weight takes no gradient: where it is clipped to a constant, none is missing
        config = config.model_copy(update={"ratio_low": 1.0, "ratio_high": 1.0})
    assert torch.autograd.gradcheck(lambda x: total(config, x, inputs), (logprobs,), eps=1e-8, atol=1e-6)


@every_loss()
def test_extreme_log_ratios_give_no_nan_gradient(config):
    logprobs, inputs = batch(dtype=torch.float32)
    for name in ("sampling_logprobs", "reference_logprobs"):
        for extreme in (-200.0, -1e-6):
            pushed = {**inputs, name: torch.full((B, T), extreme)}
            assert gradient(config, logprobs, pushed).isfinite().all()
            assert gradient(config, (logprobs.detach() - 200).requires_grad_(), pushed).isfinite().all()


@every_loss()
def test_an_input_of_the_wrong_shape_is_refused_by_name(config):
    logprobs, inputs = batch()
    for name in (*required_inputs(config), "loss_mask"):
        with pytest.raises(LossInputError, match=rf"{name} has shape \[3, 1\] beside .* \[3, 6\]"):
            evaluate(config, logprobs, {**inputs, name: inputs[name][:, :1]})


@pytest.mark.parametrize("name", LOSSES)
def test_the_shapes_in_a_functions_signature_hold(name):
    row = LOSSES[name]
    logprobs, inputs = batch()
    checked = jaxtyped(typechecker=beartype)(row.function)
    streams = {stream: inputs[stream] for stream in row.inputs}
    assert checked(logprobs, **streams)[0].shape == (B, T)
    for stream in row.inputs:
        with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
            checked(logprobs, **{**streams, stream: streams[stream][:, :1]})
    with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
        checked(logprobs[0], **streams)


@losses_that_sign("token_local")
def test_a_tokens_value_depends_on_that_token_alone(config):
    logprobs, inputs = batch()
    values = evaluate(config, logprobs, inputs)[0]
    jacobian = torch.autograd.functional.jacobian(lambda x: evaluate(config, x, inputs)[0], logprobs)
    jacobian = jacobian.reshape(values.numel(), values.numel())
    assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
    assert jacobian.diagonal().any()


@losses_that_sign("zero_advantage")
def test_no_advantage_no_gradient(config):
    logprobs, inputs = batch()
    inputs["advantages"] = torch.zeros(B, T, dtype=logprobs.dtype)
    assert not gradient(config, logprobs, inputs).any()


@losses_that_sign("reinforce_per_token")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_on_policy_the_gradient_is_reinforce(config, reduction):
    logprobs, inputs = batch()
    inputs["sampling_logprobs"] = logprobs.detach().clone()
    expected = -inputs["advantages"] * weights(inputs, reduction)
    torch.testing.assert_close(gradient(config, logprobs, inputs, reduction), expected)


@losses_that_sign("reinforce_per_sequence")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_on_policy_the_gradient_is_reinforce_with_one_advantage_a_sequence(config, reduction):
    logprobs, inputs = batch()
    inputs["sampling_logprobs"] = logprobs.detach().clone()
    inputs["advantages"] = inputs["advantages"][:, :1].expand(B, T)
    expected = -inputs["advantages"] * weights(inputs, reduction)
    torch.testing.assert_close(gradient(config, logprobs, inputs, reduction), expected)
