"""Frozen weights in few bits: what they stand for, how much room they take, and that adapters learn beside them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec
from fettle.engine.local import LocalBackend
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.engine.local.quantized import Quantized, nf4_levels
from fettle.errors import ModelError
from fettle.types import Datum, datum

CPU = torch.device("cpu")
KINDS = pytest.mark.parametrize("kind", ["int8", "nf4"])


def layer(width: int = 100) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, 48)


def data() -> list[Datum]:
    random = np.random.default_rng(0)
    return [datum(random.integers(5, 300, 9).tolist(), [0, *[1] * 8]) for _ in range(4)]


def test_the_levels_are_the_sixteen_of_the_paper():
    """Appendix E of arXiv:2305.14314, to four places."""
    expected = [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0]
    expected += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1]
    assert nf4_levels().tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("kind", "allowed"), [("int8", 0.5 / 127), ("nf4", 0.16)])
def test_a_weight_is_off_by_no_more_than_half_a_step_of_its_largest_neighbour(kind, allowed):
    full = layer()
    said = Quantized(full, kind).weight(torch.float32)
    largest = full.weight.abs().amax(1, keepdim=True)
    assert ((said - full.weight).abs() <= allowed * largest + 1e-7).all()


@pytest.mark.parametrize(("kind", "bytes_a_weight"), [("int8", 1 + 4 / 128), ("nf4", 0.5 + 4 / 64)])
def test_it_takes_the_room_it_should(kind, bytes_a_weight):
    full = nn.Linear(128, 128, bias=False)
    small = Quantized(full, kind)
    assert sum(b.numel() * b.element_size() for b in small.buffers()) == bytes_a_weight * 128 * 128
    assert not list(small.parameters())


@KINDS
@pytest.mark.parametrize("width", [64, 100])
def test_product_and_gradient_are_those_of_the_weight_it_stands_for(kind, width):
    full = layer(width)
    small = Quantized(full, kind)
    x = torch.randn(5, width, requires_grad=True)
    expected = nn.functional.linear(x, small.weight(torch.float32), full.bias)
    torch.testing.assert_close(small(x), expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (small(x), expected))
    torch.testing.assert_close(ours, theirs)


@KINDS
def test_what_is_trained_and_in_what_it_is_stored_is_what_was_asked_for(kind, tiny):
    base = load_model(tiny, device=CPU, precision="float32", trained=False, quantization=kind)
    held = LocalPolicy(PolicySpec(model=tiny, lora=LoRA(rank=4), quantization=kind), base)
    linear = [module for module in base.module.modules() if isinstance(module, nn.Linear)]
    assert linear == [base.module.get_output_embeddings()]
    quantized = [module for module in base.module.modules() if isinstance(module, Quantized)]
    assert len(held._parameters) == 2 * len(quantized) == 2 * 7 * 2
    assert {p.dtype for p in held._parameters.values()} == {torch.float32}
    assert {q.codes.dtype for q in quantized} == {torch.int8 if kind == "int8" else torch.uint8}
    assert not any(p.requires_grad for p in base.parameters.values())


@KINDS
def test_only_the_layers_that_are_named_are_trained(kind, tiny):
    base = load_model(tiny, device=CPU, precision="float32", trained=False, quantization=kind)
    spec = PolicySpec(model=tiny, lora=LoRA(rank=3, targets=("q_proj", "v_proj")), quantization=kind)
    trained = LocalPolicy(spec, base)._parameters
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in trained}
    assert layers == {"q_proj", "v_proj"}
    assert {min(p.shape) for p in trained.values()} == {3}


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "by bitsandbytes, whose layers are not trained here"),
        ({"quant_method": "gptq", "bits": 4}, "cannot be loaded"),
    ],
)
def test_weights_that_another_package_stored_in_few_bits_are_refused(stored, says, tiny, tmp_path):
    folder = tmp_path / "stored"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": stored}))
    with pytest.raises(ModelError, match=says):
        load_model(str(folder), device=CPU, precision="float32", trained=False)


@KINDS
def test_adapters_learn_beside_it_and_come_back_from_disk(kind, tiny, tmp_path: Path):
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=4), quantization=kind))
    losses = []
    for _ in range(15):
        losses.append(backend.forward_backward("p", data(), CausalLM()).loss)
        backend.optim_step("p", AdamW(learning_rate=2e-2))
    assert losses[-1] < 0.9 * losses[0]
    saved = backend.save("p", "saved", optimizer=True).result()
    backend.load_policy("again", saved.path, optimizer=True)
    expected = backend.forward("p", data(), CausalLM()).logprobs
    for ours, theirs in zip(expected, backend.forward("again", data(), CausalLM()).logprobs, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    sampled = backend.logprobs(saved.path, [d.tokens.tolist() for d in data()], temperature=1.0)
    for ours, theirs in zip(expected, sampled, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_whole_weights_are_not_quantized():
    with pytest.raises(ValueError, match="quantization is nf4, and whole weights are trained: set lora as well"):
        PolicySpec(model="m", quantization="nf4")


@pytest.mark.parametrize(("first", "second"), [(None, "nf4"), ("nf4", "nf4"), ("nf4", None)])
def test_a_second_stage_is_stored_as_asked_and_begins_where_the_first_one_ended(first, second, tiny, tmp_path: Path):
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)

    def trained(name: str, model: str, kind):
        backend.create_policy(name, PolicySpec(model=model, lora=LoRA(rank=4), quantization=kind))
        begun = backend.forward(name, data(), CausalLM()).logprobs
        for _ in range(3):
            backend.forward_backward(name, data(), CausalLM())
            backend.optim_step(name, AdamW(learning_rate=2e-2))
        return begun, backend.save(name, name, optimizer=False).result().path

    _, before = trained("one", tiny, first)
    ended = backend.forward("one", data(), CausalLM()).logprobs
    begun, after = trained("two", before, second)
    small = [each for each in backend._policies["two"].model.module.modules() if isinstance(each, Quantized)]
    assert len(small) == (14 if second else 0)
    for ours, theirs in zip(begun, ended, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4 if first == "nf4" else 0.3)
    drawn = backend.logprobs(after, [d.tokens.tolist() for d in data()], temperature=1.0)
    for ours, theirs in zip(backend.forward("two", data(), CausalLM()).logprobs, drawn, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
