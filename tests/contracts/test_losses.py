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

from fettle.config import GSPO, KL, LossConfig, PolicyLoss, Reading, Value
from fettle.errors import LossInputError
from fettle.losses import LOSSES, evaluate, finished, model_outputs, required_inputs, required_scalars, unit_of
from fettle.losses.evaluation import TERMS
from fettle.losses.reduce import REDUCTIONS
from fettle.losses.table import Contract

B, T = 4, 6
LENGTHS = [6, 4, 3, 5]
EXTREME = 1e30
"""Finite, and far past what float32 can exponentiate."""

Inputs = dict[str, Tensor]

PLAIN: dict[str, LossConfig] = {name: row.settings() for name, row in LOSSES.items()}
WITH_TERMS: dict[str, LossConfig] = {
    f"{name}+{what}": row.settings(**terms)
    for name, row in LOSSES.items()
    if issubclass(row.settings, PolicyLoss)
    for what, terms in {
        "k2": {"kl": KL(estimator="k2")},
        "k3": {"kl": KL(estimator="k3")},
        "entropy": {"entropy_coefficient": 0.1},
        "value": {"value": Value()},
        "proximal": {"proximal_coefficient": 0.7},
    }.items()
}
OTHER_FORMS: dict[str, LossConfig] = {"gspo at the level of tokens": GSPO(level="token")}
EVERY = PLAIN | WITH_TERMS | OTHER_FORMS


def signed(contract: Contract) -> list[str]:
    return [name for name, row in LOSSES.items() if contract in row.contracts]


def every_loss():
    return pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)


def losses_that_sign(contract: Contract):
    names = signed(contract)
    return pytest.mark.parametrize("config", [PLAIN[name] for name in names], ids=names)


def batch(seed: int = 0, *, spread: float = 0.3, dtype: torch.dtype = torch.float64) -> tuple[Inputs, Inputs]:
    """What a model said, and every input a loss may read. Rows are chosen and rejected in turn."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*(shape or (B, T)), generator=random, dtype=dtype)

    logprobs = -0.1 - torch.rand(B, T, generator=random, dtype=dtype)
    rows = [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]]
    values = normal()
    said = {"logprobs": logprobs, "entropy": normal().abs(), "values": values, "scores": normal(B)}
    inputs = {
        "sampling_logprobs": logprobs + spread * normal(),
        "reference_logprobs": logprobs + spread * normal(),
        "advantages": normal(),
        "returns": values + spread * normal(),
        "old_values": values + spread * normal(),
        "loss_mask": torch.tensor(rows, dtype=dtype),
        "sequence_ratio_mask": torch.tensor(rows, dtype=dtype),
        "preferred": torch.tensor([1.0, 0.0] * (B // 2), dtype=dtype),
        "kl_baseline": torch.full((B,), 0.2, dtype=dtype),
        "margin": torch.tensor([0.1, 0.1, 0.0, 0.0], dtype=dtype),
        "weight": torch.tensor([0.3, 0.3, 0.6, 0.6], dtype=dtype),
    }
    return {name: x.detach().requires_grad_() for name, x in said.items()}, {k: x.detach() for k, x in inputs.items()}


def weights(config: LossConfig, inputs: Mapping[str, Tensor], reduction: str = "sequence_mean") -> Tensor:
    unit = unit_of(config)
    if unit != "token":
        return inputs["weight"][0::2] if unit == "pair" else inputs["weight"]
    masks = [row.numpy().astype(np.float32) for row in inputs["loss_mask"]]
    settings = {"length": 5} if reduction == "fixed_length" else {}
    return torch.tensor(np.array(REDUCTIONS[reduction](masks, **settings)), dtype=inputs["loss_mask"].dtype)


def total(config: LossConfig, said: Inputs, inputs: Mapping[str, Tensor], reduction: str = "sequence_mean") -> Tensor:
    return (evaluate(config, said, inputs)[0] * weights(config, inputs, reduction)).sum()


def gradients(
    config: LossConfig, said: Inputs, inputs: Mapping[str, Tensor], reduction: str = "sequence_mean"
) -> Inputs:
    """By what the model said; zeros for what the loss does not read."""
    names = list(said)
    found = torch.autograd.grad(
        total(config, said, inputs, reduction), [said[name] for name in names], allow_unused=True
    )
    pairs = zip(names, found, strict=True)
    return {name: torch.zeros_like(said[name]) if gradient is None else gradient for name, gradient in pairs}


def disturbed(values: Tensor, mask: Tensor, amount: float) -> Tensor:
    """Other numbers wherever nothing is trained on; both signs, so that differences are extreme too."""
    if values.ndim == 1:
        return values.detach()
    signs = torch.tensor([1.0, -1.0], dtype=values.dtype).repeat(B, T // 2)
    return torch.where(mask > 0, values.detach(), amount * signs)


def test_the_table_has_one_row_for_each_type_of_settings():
    kinds = get_args(get_args(LossConfig)[0])
    assert {row.settings for row in LOSSES.values()} == set(kinds) - {Reading}
    assert all(row.settings().type == name for name, row in LOSSES.items())


def test_every_contract_is_one_that_is_tested_here():
    assert set().union(*(row.contracts for row in LOSSES.values())) == set(get_args(Contract))


@pytest.mark.parametrize("name", LOSSES)
def test_a_function_takes_its_inputs_and_its_settings_by_keyword_with_the_same_defaults(name):
    row = LOSSES[name]
    settings = {field: value for field, value in row.settings() if field not in TERMS}
    keywords = [p for p in inspect.signature(row.function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [p.name for p in keywords] == [*row.inputs, *settings]
    assert {p.name: p.default for p in keywords if p.default is not p.empty} == settings


@every_loss()
def test_a_loss_is_one_value_a_unit(config):
    shapes = {"token": (B, T), "sequence": (B,), "pair": (B // 2,)}
    assert evaluate(config, *batch())[0].shape == shapes[unit_of(config)]


@every_loss()
def test_every_declared_metric_is_reported_detached_finite_and_one_a_unit(config):
    said, inputs = batch()
    mask = inputs["loss_mask"]
    inputs = {name: disturbed(values, mask, EXTREME) for name, values in inputs.items()} | {"loss_mask": mask}
    values, metrics = evaluate(config, said, inputs)
    kl, value = getattr(config, "kl", None), getattr(config, "value", None)
    of_terms = [*([f"kl_{kl.estimator}"] if kl else []), *(LOSSES["value"].metrics if value else [])]
    assert set(metrics) == {*LOSSES[config.type].metrics, *of_terms}
    for metric in metrics.values():
        assert metric.shape == values.shape
        assert not metric.requires_grad
        assert metric.isfinite().all()
        assert metric.dtype == values.dtype
    means = {name: float(metric.mean()) for name, metric in metrics.items()}
    assert not any(name.endswith("_squared") for name in finished(means))


@every_loss()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_masked_tokens_change_nothing_in_value_or_gradient(config, dtype):
    said, inputs = batch(dtype=dtype)
    mask = inputs["loss_mask"]
    others = {name: disturbed(values, mask, EXTREME) for name, values in inputs.items()} | {"loss_mask": mask}
    elsewhere = {name: disturbed(values, mask, EXTREME).requires_grad_() for name, values in said.items()}
    assert torch.equal(total(config, said, inputs), total(config, elsewhere, others))
    changed = gradients(config, elsewhere, others)
    for name, gradient in gradients(config, said, inputs).items():
        assert torch.equal(gradient, changed[name])
        if gradient.ndim == 2:
            assert not changed[name][mask == 0].any()


@every_loss()
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_micro_batches_sum_to_the_batch(config, reduction):
    said, inputs = batch()
    whole, share = total(config, said, inputs, reduction), weights(config, inputs, reduction)
    splits = [[[0, 1], [2, 3]], [[2, 3], [0, 1]]]
    if unit_of(config) != "pair":
        splits += [[[0], [1], [2], [3]], [[0, 2], [3, 1]]]
    for rows in splits:
        parts = torch.zeros((), dtype=whole.dtype)
        for part in rows:
            end = max(LENGTHS[row] for row in part)  # a micro-batch is only as long as its longest sequence
            cut = [{name: x[part, :end] if x.ndim == 2 else x[part] for name, x in of.items()} for of in (said, inputs)]
            of_part = share[part, :end] if share.ndim == 2 else share[part] if len(share) == B else share[part[0] // 2]
            parts = parts + (evaluate(config, *cut)[0] * of_part).sum()
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


@every_loss()
@pytest.mark.parametrize("spread", [0.3, 1e-4], ids=["far", "near"])
def test_the_gradient_is_that_of_finite_differences(config, spread):
    said, inputs = batch(3, spread=spread)
    if config.type == "cispo":  # its weight takes no gradient: where it is clipped to a constant, none is missing
        config = config.model_copy(update={"ratio_low": 1.0, "ratio_high": 1.0})
    if config.type == "gspo":  # at the level of tokens the sequence's ratio takes no gradient either
        config = config.model_copy(update={"level": "sequence"})
    names = list(said)

    def of(*leaves: Tensor) -> Tensor:
        return total(config, dict(zip(names, leaves, strict=True)), inputs)

    assert torch.autograd.gradcheck(of, tuple(said.values()), eps=1e-8, atol=1e-6)


@every_loss()
def test_extreme_log_ratios_give_no_nan_gradient(config):
    said, inputs = batch(dtype=torch.float32)
    for name in ("sampling_logprobs", "reference_logprobs"):
        for extreme in (-200.0, -1e-6):
            pushed = {**inputs, name: torch.full((B, T), extreme)}
            far = {**said, "logprobs": (said["logprobs"].detach() - 200).requires_grad_()}
            for spoken in (said, far):
                assert all(gradient.isfinite().all() for gradient in gradients(config, spoken, pushed).values())


@every_loss()
def test_what_the_model_is_asked_for_is_what_the_gradient_reaches(config):
    said, inputs = batch()
    reached = {name for name, gradient in gradients(config, said, inputs).items() if gradient.any()}
    assert reached - {"entropy"} == set(model_outputs(config))


@every_loss()
def test_an_input_of_the_wrong_shape_is_refused_by_name(config):
    said, inputs = batch()
    for name in required_inputs(config):
        with pytest.raises(LossInputError, match=rf"{name} has shape \[4, 1\] beside .* \[4, 6\]"):
            evaluate(config, said, {**inputs, name: inputs[name][:, :1]})


@pytest.mark.parametrize("name", LOSSES)
def test_the_shapes_in_a_functions_signature_hold(name):
    row = LOSSES[name]
    said, inputs = batch()
    checked = jaxtyped(typechecker=beartype)(row.function)
    if row.unit == "token":
        positional = [said[row.reads]]
        streams = {stream: inputs[stream] for stream in row.inputs}
    else:
        positional, size = [], B if row.unit == "sequence" else B // 2
        streams = {stream: -torch.ones(size, dtype=torch.float64) for stream in row.inputs}
    checked(*positional, **streams)
    for stream, values in streams.items():
        with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
            checked(*positional, **{**streams, stream: values[None] if values.ndim == 1 else values[:, :1]})


def test_what_a_loss_of_pairs_or_ratings_needs_of_a_datum_is_told():
    assert required_scalars(PLAIN["dpo"]) == ("preferred",)
    assert required_scalars(PLAIN["kto"]) == ("preferred", "kl_baseline")
    assert required_scalars(PLAIN["ppo"]) == ()
    assert required_inputs(PLAIN["dpo"]) == ("reference_logprobs",)
    assert required_inputs(PLAIN["dpo"].model_copy(update={"reference_free": True})) == ()
    assert required_inputs(PLAIN["simpo"]) == ()


@losses_that_sign("token_local")
def test_a_tokens_value_depends_on_that_token_alone(config):
    said, inputs = batch()
    values = evaluate(config, said, inputs)[0]
    jacobian = torch.autograd.functional.jacobian(
        lambda x: evaluate(config, {**said, "logprobs": x}, inputs)[0], said["logprobs"]
    )
    jacobian = jacobian.reshape(values.numel(), values.numel())
    assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
    assert jacobian.diagonal().any()


@losses_that_sign("zero_advantage")
def test_no_advantage_no_gradient(config):
    said, inputs = batch()
    inputs["advantages"] = torch.zeros(B, T, dtype=torch.float64)
    assert not any(gradient.any() for gradient in gradients(config, said, inputs).values())


@losses_that_sign("reinforce_per_token")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_on_policy_the_gradient_is_reinforce(config, reduction):
    said, inputs = batch()
    inputs["sampling_logprobs"] = said["logprobs"].detach().clone()
    expected = -inputs["advantages"] * weights(config, inputs, reduction)
    torch.testing.assert_close(gradients(config, said, inputs, reduction)["logprobs"], expected)


@losses_that_sign("reinforce_per_sequence")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_on_policy_the_gradient_is_reinforce_with_one_advantage_a_sequence(config, reduction):
    said, inputs = batch()
    inputs["sampling_logprobs"] = said["logprobs"].detach().clone()
    inputs["advantages"] = inputs["advantages"][:, :1].expand(B, T)
    expected = -inputs["advantages"] * weights(config, inputs, reduction)
    torch.testing.assert_close(gradients(config, said, inputs, reduction)["logprobs"], expected)
