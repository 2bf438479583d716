"""Parameters in one buffer: their order, their gradients, and that a call adds all of its own or nothing."""

import pytest
import torch
from torch import nn

from fettle.engine.local.flat import Flat, lay_out
from fettle.engine.local.model import load_model

CPU = torch.device("cpu")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def flat_of(module: nn.Module) -> Flat:
    return Flat(dict(module.named_parameters()))


def loss(module: nn.Module, seed: int) -> torch.Tensor:
    return module(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))).square().sum()


def test_matrices_lie_first_then_the_rest_each_in_module_order_and_without_gaps():
    module = small()
    values = {name: p.detach().clone() for name, p in module.named_parameters()}
    flat = flat_of(module)
    order = ["0.weight", "2.weight", "0.bias", "1.weight", "1.bias", "2.bias"]
    assert torch.equal(flat.values, torch.cat([values[name].flatten() for name in order]))
    assert [p.data_ptr() - flat.values.data_ptr() for p in (module[0].weight, module[2].weight)] == [0, 12 * 4]
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, values[name])


def test_what_is_written_into_the_buffer_is_what_the_module_computes_with():
    module = small()
    flat = flat_of(module)
    flat.values.zero_()
    assert module(torch.ones(1, 3)).abs().max() == 0


def test_queries_keys_and_values_of_a_model_are_one_matrix(tiny):
    model = load_model(tiny, device=CPU, precision="float32", trained=False)
    attention = model.module.base_model.layers[0].self_attn
    rows = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    joined = rows[0].as_strided((sum(len(row) for row in rows), rows[0].shape[1]), rows[0].stride())
    assert torch.equal(joined, torch.cat(rows))


def test_tied_weights_are_held_once(tiny):
    model = load_model(tiny, device=CPU, precision="float32", trained=True)
    flat = Flat(model.parameters)
    inputs, outputs = model.module.get_input_embeddings(), model.module.get_output_embeddings()
    assert inputs.weight is outputs.weight
    assert flat.values.numel() == model.module.num_parameters()


def test_each_type_has_a_buffer_of_its_own():
    parameters = [nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float32)]
    assert [(len(buffer), buffer.dtype) for buffer in lay_out(parameters)] == [(4, torch.float32), (2, torch.bfloat16)]


def test_gradients_are_views_however_often_backward_adds_to_them():
    module = small()
    flat = flat_of(module)
    for call in range(3):
        with flat.all_or_nothing():
            for micro_batch in range(2):
                loss(module, 10 * call + micro_batch).backward()
        gradients = flat.gradients
        for name, view in flat.views(gradients).items():
            assert flat.parameters[name].grad.data_ptr() == view.data_ptr()


def test_the_sum_over_calls_is_the_gradient_of_the_sum():
    module, plain = small(), small()
    flat = flat_of(module)
    for call in range(3):
        with flat.all_or_nothing():
            loss(module, call).backward()
        loss(plain, call).backward()
    for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("calls_before", [0, 1, 2])
def test_a_call_that_raises_adds_nothing(calls_before):
    module = small()
    flat = flat_of(module)
    for call in range(calls_before):
        with flat.all_or_nothing():
            loss(module, call).backward()
    before = None if flat.gradients is None else flat.gradients.clone()
    with pytest.raises(RuntimeError, match="dtype"), flat.all_or_nothing():
        (loss(module, 9).backward(), module(torch.ones(1, 3, dtype=torch.long)))
    if before is None:
        assert flat.gradients is None
        assert all(parameter.grad is None for parameter in module.parameters())
    else:
        assert torch.equal(flat.gradients, before)
        with flat.all_or_nothing():
            loss(module, 8).backward()
        assert not torch.equal(flat.gradients, before)


def test_the_first_call_after_a_step_makes_no_second_buffer():
    module = small()
    flat = flat_of(module)
    with flat.all_or_nothing():
        loss(module, 0).backward()
    first = flat.gradients.data_ptr()
    flat.clear()
    assert all(parameter.grad is None for parameter in module.parameters())
    with flat.all_or_nothing():
        loss(module, 1).backward()
    assert flat.gradients.data_ptr() == first


def test_a_parameter_that_the_loss_does_not_reach_has_a_gradient_of_zero():
    module = small()
    flat = flat_of(module)
    with flat.all_or_nothing():
        module[0].weight.sum().backward()
    assert module[2].bias.grad.tolist() == [0, 0]
