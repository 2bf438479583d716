"""Lean forwards against transformers' own modules."""

import math

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from fettle.config import LoRA
from fettle.engine.local.flat import lay_out
from fettle.engine.local.forward import Carried, DrivenForward
from fettle.engine.local.fusing import fused
from fettle.engine.local.lean import LeanForward, lean_family, lean_forward
from fettle.engine.local.lean_adapters import owned
from fettle.engine.local.lean_families import FAMILIES
from fettle.engine.local.lora import Adapter, Slots
from fettle.engine.local.model import LanguageModel
from fettle.engine.local.quantized import quantize

VOCABULARY, N = 61, 23
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 64,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "attn_implementation": "eager",
}  # fmt: skip
GPT2_SIZES = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "attn_implementation": "eager",
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
CONFIGS = {
    "llama": ("Llama", {}),
    "llama, every bias": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, as many key heads": ("Llama", {"num_key_value_heads": 4}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama, linear rope": ("Llama", {"rope_parameters": LINEAR}),
    "llama, llama3 rope": ("Llama", {"rope_parameters": LLAMA3}),
    "llama, yarn rope": ("Llama", {"rope_parameters": YARN}),
    "llama, gelu": ("Llama", {"hidden_act": "gelu"}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral, sliding": ("Mistral", {"sliding_window": 5}),
    "qwen2": ("Qwen2", {}),
    "qwen2, sliding": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "layer_types": SLIDING}),
    "qwen3": ("Qwen3", {}),
    "qwen3, one key head, tied": ("Qwen3", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen3, biases": ("Qwen3", {"attention_bias": True}),
    "qwen3, sliding": ("Qwen3", {"use_sliding_window": True, "sliding_window": 5, "layer_types": SLIDING}),
    "gemma": ("Gemma", {}),
    "gemma3": ("Gemma3", {"sliding_window": 5, "layer_types": SLIDING, "query_pre_attn_scalar": 20}),
    "gemma3, full layers scaled": (
        "Gemma3",
        {
            "sliding_window": 5,
            "layer_types": SLIDING,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": LINEAR,
            },
        },
    ),
    "phi3": ("Phi3", {}),
    "phi3, sliding": ("Phi3", {"sliding_window": 5}),
    "gpt2": ("GPT2", {}),
    "gpt2, untied": ("GPT2", {"tie_word_embeddings": False}),
    "gpt2, scaled by layer": ("GPT2", {"scale_attn_by_inverse_layer_idx": True, "n_inner": 40}),
}
"""Of each: transformers' name, and what is not usual."""


def config_of(family: str, **unusual: object) -> transformers.PretrainedConfig:
    name = "Gemma3Text" if family == "Gemma3" else family
    sizes = GPT2_SIZES if family == "GPT2" else SIZES
    return getattr(transformers, f"{name}Config")(**{**sizes, **unusual})


def made(variant: str, *, precision: str = "float32", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A model no weight of which is at 0 or 1, where arithmetic hides."""
    family, unusual = CONFIGS[variant]
    torch.manual_seed(0)
    kind = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    module: PreTrainedModel = getattr(transformers, kind)(config_of(family, **unusual)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    module.requires_grad_(False)
    return model_of(module.to(dtype), precision)


def model_of(module: PreTrainedModel, precision: str = "float32") -> LanguageModel:
    return LanguageModel(
        module=module, tokenizer=None, source="made", precision=precision, slots=Slots(module), context=64,
        vocabulary=VOCABULARY, end_token_ids=frozenset({2}), head_is_one_matrix=True,
    )  # fmt: skip


class Causal:
    """The plainest attention: of each token to those before it of the same sequence."""

    def __init__(self, sequence: Tensor) -> None:
        self.sequence = sequence

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        place = torch.arange(len(query))
        back = place[:, None] - place
        seen = (back >= 0) & (back < (window or len(query))) & (self.sequence[:, None] == self.sequence)
        group = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(group, 1) for each in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query, key) * scale
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, value)


ONE = Causal(torch.zeros(N, dtype=torch.long))
TOKENS = torch.randint(VOCABULARY, (N,), generator=torch.Generator().manual_seed(0))
POSITIONS = torch.arange(N)


def lean(model: LanguageModel, tensors: dict[str, Tensor] | None = None) -> LeanForward:
    forward = lean_forward(model, tensors)
    assert isinstance(forward, LeanForward)
    return forward


def close(found: Tensor, expected: Tensor, rounding: float) -> None:
    assert found.shape == expected.shape
    assert (found.float() - expected.float()).abs().max() <= rounding * expected.float().abs().max()


def states_of_transformers(model: LanguageModel, tokens: Tensor) -> list[Tensor]:
    """What goes into the first layer, what comes out of each, what the head is given, and the logits."""
    family = FAMILIES[lean_family(model.module.config)]
    trunk = model.module.get_submodule(family.trunk)
    states: list[Tensor] = []
    layers = trunk.get_submodule(family.layers)
    hooks = [layers[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0].clone()))]
    for module in (*layers, trunk.get_submodule(family.final_norm), model.module.lm_head):
        hooks.append(module.register_forward_hook(lambda _, __, output: states.append(output.clone())))
    with torch.no_grad(), model.arithmetic():
        model.module(input_ids=tokens[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return [state[0] for state in states]


def states_of_lean(model: LanguageModel, tokens: Tensor) -> list[Tensor]:
    forward = lean(model)
    x = forward.embedded(tokens, POSITIONS)
    states = [x.clone()]
    for layer, rotation in zip(forward.layers, forward.rotations(POSITIONS), strict=True):
        layer.finish(x, layer.attended(x, rotation, ONE, None), None)
        states.append(x.clone())
    return [*states, forward.final_norm(x), forward.logits(tokens, POSITIONS, ONE)]


@pytest.mark.parametrize("variant", CONFIGS)
def test_each_module_gives_what_transformers_own_gives(variant):
    model = made(variant)
    expected, found = states_of_transformers(model, TOKENS), states_of_lean(model, TOKENS)
    assert len(expected) == len(found) == 3 + 3
    for theirs, ours in zip(expected, found, strict=True):
        assert ours.dtype == theirs.dtype
        close(ours, theirs, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["trained", "frozen"])
@pytest.mark.parametrize("variant", ["llama, every bias", "qwen3", "gemma3", "gpt2", "phi3"])
def test_in_bfloat16_each_module_is_as_near_to_float32_as_transformers_own(variant, dtype):
    model = made(variant, precision="bfloat16", dtype=dtype)
    exact = states_of_transformers(made(variant), TOKENS)
    theirs, ours = states_of_transformers(model, TOKENS), states_of_lean(model, TOKENS)
    for their, our, state in zip(theirs, ours, exact, strict=True):
        assert our.dtype == their.dtype
        close(our, their, 4e-2)
        assert (our - state).norm() <= 1.5 * (their - state).norm()


@pytest.mark.parametrize("variant", ["qwen3, sliding", "gemma3", "gpt2", "mistral, sliding"])
def test_sequences_end_to_end_give_what_the_driven_modules_give(variant):
    model, attention = made(variant), Causal(torch.repeat_interleave(torch.tensor([9, 4, 10])))
    positions = torch.cat([torch.arange(9), torch.arange(30, 34), torch.arange(10)])
    wanted = torch.tensor([8, 12, 3, 22])
    expected = DrivenForward(model.module).logits(TOKENS, positions, attention, wanted=wanted)
    close(lean(model).logits(TOKENS, positions, attention, wanted=wanted), expected, 1e-5)


def test_tables_of_rotations_grow_with_the_positions():
    model, kept = made("gemma3"), lean(made("gemma3"))
    for start in (0, 40, 3):
        positions = POSITIONS + start
        expected = DrivenForward(model.module).logits(TOKENS, positions, ONE)
        close(kept.logits(TOKENS, positions, ONE), expected, 1e-5)


def test_every_family_is_verified():
    assert {lean_family(config_of(family, **unusual)) for family, unusual in CONFIGS.values()} == set(FAMILIES)


@pytest.mark.parametrize(
    ("family", "unusual"),
    [
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        ("Llama", {"hidden_act": "quick_gelu"}),
        ("Phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        ("Gemma3", {"final_logit_softcapping": 30.0}),
        ("Gemma3", {"attn_logit_softcapping": 50.0}),
        ("Gemma3", {"use_bidirectional_attention": True}),
        ("Qwen3", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}),
        ("GPT2", {"add_cross_attention": True}),
        ("Gemma2", {}),
        ("Qwen3Moe", {}),
        ("Olmo2", {}),
    ],
)
def test_a_config_that_asks_for_more_is_refused(family, unusual):
    assert lean_family(config_of(family, **unusual)) == ""


def test_a_model_in_few_bits_is_refused():
    model = made("qwen3")
    assert lean_forward(model, None) is not None
    quantize(model.module, "int8")
    assert lean_forward(model, None) is None


class Other(transformers.LlamaForCausalLM):
    """Whose arithmetic may be another."""


def test_a_model_of_another_class_is_refused():
    assert lean_forward(model_of(Other(config_of("Llama"))), None) is None


@pytest.mark.parametrize("variant", ["llama", "qwen3, one key head, tied", "gpt2"])
def test_tensors_in_the_place_of_the_models_own_are_used(variant):
    model = made(variant)
    before = lean(model).logits(TOKENS, POSITIONS, ONE)
    for name in model.parameters:
        others = {each: value.clone() for each, value in model.parameters.items()}
        others[name] += 0.5 * torch.randn_like(others[name])
        found = lean(model, others).logits(TOKENS, POSITIONS, ONE)
        assert not torch.allclose(found, before, rtol=0, atol=1e-4), name
    assert torch.equal(lean(model).logits(TOKENS, POSITIONS, ONE), before)
    model.module.load_state_dict(others, strict=False)
    close(lean(model).logits(TOKENS, POSITIONS, ONE), found, 1e-6)


def adapter_of(model: LanguageModel, targets: tuple[str, ...], seed: int, rank: int = 4) -> Adapter:
    adapter = model.slots.adapter(LoRA(rank=rank, alpha=3.0 * rank, targets=targets), seed=seed)
    for _, up in adapter.layers.values():
        up.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    return adapter


TARGETS = [
    ("qwen3", ("all-linear",)),
    ("qwen3", ("k_proj",)),
    ("llama, every bias", ("q_proj", "v_proj", "up_proj")),
    ("gemma3", ("o_proj", "down_proj", "v_proj")),
    ("phi3", ("qkv_proj", "gate_up_proj")),
    ("gpt2", ("c_attn", "c_proj")),
]


@pytest.mark.parametrize(("variant", "targets"), TARGETS)
def test_an_adapter_beside_the_weights_gives_what_it_gives_in_the_slots(variant, targets):
    model = made(variant)
    adapter = adapter_of(model, targets, 1)
    with model.slots.holding(adapter):
        expected = DrivenForward(model.module).logits(TOKENS, POSITIONS, ONE)
    found = lean(model).logits(TOKENS, POSITIONS, ONE, carried=[Carried(adapter, None)])
    close(found, expected, 1e-5)
    assert not torch.allclose(found, lean(model).logits(TOKENS, POSITIONS, ONE), rtol=0, atol=1e-2)


@pytest.mark.parametrize("order", [torch.arange, torch.randperm], ids=["end to end", "mixed"])
@pytest.mark.parametrize("counts", [(6, 2, 2, 13), (9, 6, 0, 8), (0, 5, 5, 13)])
@pytest.mark.parametrize("variant", ["qwen3", "gpt2"])
def test_adapters_of_unlike_ranks_and_targets_serve_their_own_tokens_in_one_pass(variant, counts, order):
    model = made(variant)
    targets = [("all-linear",), ("c_attn",) if variant == "gpt2" else ("v_proj", "gate_proj"), ("all-linear",)]
    adapters = [adapter_of(model, each, seed, rank=2 + seed) for seed, each in enumerate(targets)]
    owner = torch.repeat_interleave(torch.tensor(counts))[order(N)]  # 0: nobody
    positions = torch.zeros(N, dtype=torch.long)
    for i, count in enumerate(counts):
        positions[owner == i] = torch.arange(count)
    expected = torch.zeros(N, VOCABULARY)
    for i, adapter in enumerate([None, *adapters]):
        with model.slots.holding(adapter), torch.no_grad():
            logits = DrivenForward(model.module).logits(TOKENS, positions, Causal(owner))
        expected[owner == i] = logits[owner == i]
    forward = lean(model)

    def logits_of(*which: int, wanted: Tensor | None = None) -> Tensor:
        carried = [Carried(adapters[i - 1], (owner == i).nonzero()[:, 0]) for i in which]
        return forward.logits(TOKENS, positions, Causal(owner), wanted=wanted, carried=carried)

    wanted = torch.tensor([20, 3, 11])
    close(logits_of(1, 2, 3), expected, 1e-5)
    close(logits_of(3, 1, 2, wanted=wanted), expected[wanted], 1e-5)
    for some in ((3,), (1, 3)):
        theirs = torch.isin(owner, torch.tensor([0, *some]))
        close(logits_of(*some)[theirs], expected[theirs], 1e-5)


def test_tokens_that_lie_mixed_are_brought_together_by_adapter():
    mixed = torch.tensor([1, 0, -1, 1, 0, -1, 1])
    assert owned(((), ()), mixed).runs == ((-1, 2), (0, 2), (1, 3))
    together = owned(((), ()), torch.tensor([1, 1, -1, -1, 0]))
    assert together.runs == ((1, 2), (-1, 2), (0, 1))
    assert together.order is None


def test_an_adapter_in_bfloat16_is_as_near_as_bfloat16_is():
    model = made("qwen3", precision="bfloat16")
    adapter = adapter_of(model, ("all-linear",), 1)
    with model.slots.holding(adapter), torch.no_grad(), model.arithmetic():
        expected = DrivenForward(model.module).logits(TOKENS, POSITIONS, ONE)
    close(lean(model).logits(TOKENS, POSITIONS, ONE, carried=[Carried(adapter, None)]), expected, 4e-2)


def test_matrices_that_lie_side_by_side_are_one_without_a_copy():
    flat = torch.randn(100)
    first, second = flat[4:16].view(3, 4), flat[16:36].view(5, 4)
    both = fused([first, second])
    assert both.data_ptr() == first.data_ptr()
    assert torch.equal(both, torch.cat([first, second]))
    second.fill_(7)
    assert (both[3:] == 7).all()


@pytest.mark.parametrize("variant", ["llama, every bias", "qwen2", "gemma3", "gpt2", "phi3"])
def test_weights_that_the_engine_has_laid_out_are_not_copied(variant):
    model = made(variant)
    (buffer,) = lay_out(list(model.parameters.values()))
    for layer in lean(model).layers:
        for product in (layer.query_key_value, layer.output, layer.widening, layer.narrowing):
            assert product.weight.untyped_storage().data_ptr() == buffer.data_ptr()
            assert product.bias is None or product.bias.untyped_storage().data_ptr() == buffer.data_ptr()
    close(lean(model).logits(TOKENS, POSITIONS, ONE), states_of_transformers(model, TOKENS)[-1], 1e-5)


@pytest.mark.parametrize(
    "weights",
    [
        lambda flat: [flat[0:12].view(3, 4), flat[13:25].view(3, 4)],
        lambda flat: [flat[12:24].view(3, 4), flat[0:12].view(3, 4)],
        lambda flat: [flat[0:12].view(3, 4), flat[12:24].clone().view(3, 4)],
        lambda flat: [flat[0:12].view(4, 3).t(), flat[12:24].view(4, 3).t()],
    ],
    ids=["a gap", "out of order", "another storage", "transposed"],
)
def test_matrices_that_do_not_are_copied(weights):
    parts = weights(torch.randn(30))
    both = fused(parts)
    assert both.untyped_storage().data_ptr() != parts[0].untyped_storage().data_ptr()
    assert torch.equal(both, torch.cat(parts))
