"""Packed sequences: the numbers of padded ones, whatever the architecture and the loss; else refused."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    PhiConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.modeling_outputs import BaseModelOutputWithPast

from fettle.config import (
    DPO,
    PPO,
    CausalLM,
    LocalEngine,
    LoRA,
    LossConfig,
    PolicySpec,
    Reading,
    RewardModeling,
    Value,
)
from fettle.engine.local import LocalBackend, reading
from fettle.engine.local.model import LanguageModel, load_model
from fettle.engine.local.packing import packs
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import ConfigError
from fettle.types import Datum, datum

from .conftest import capped, saved

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
ARCHITECTURES: MappingProxyType[str, Callable[[], PretrainedConfig]] = MappingProxyType(
    {
        "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=8),
        "qwen2": lambda: Qwen2Config(**SHAPE),
        "llama": lambda: LlamaConfig(**SHAPE, attention_bias=True),
        "mistral with a short window": lambda: MistralConfig(**SHAPE, sliding_window=7),
        "mistral with a long window": lambda: MistralConfig(**SHAPE, sliding_window=64),
        "gemma3": lambda: Gemma3TextConfig(
            **SHAPE, head_dim=8, sliding_window=9, layer_types=["sliding_attention", "full_attention"]
        ),
        "phi": lambda: PhiConfig(**SHAPE | {"num_key_value_heads": 4}, partial_rotary_factor=0.5),
        "gpt2": lambda: GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=3),
    }
)
POLICY, CRITIC = PPO(entropy_coefficient=0.1), PPO(entropy_coefficient=0.1, value=Value())
CASES = MappingProxyType(
    {
        "policy gradient": (POLICY, PolicySpec(model="")),
        "policy gradient of an adapter": (POLICY, PolicySpec(model="", lora=LoRA(rank=2))),
        "with a critic": (CRITIC, PolicySpec(model="", head="value")),
        "pairs": (DPO(), PolicySpec(model="")),
        "pairs of an adapter": (DPO(), PolicySpec(model="", lora=LoRA(rank=2))),
        "supervised": (CausalLM(), PolicySpec(model="")),
        "reward model": (RewardModeling(), PolicySpec(model="", head="reward")),
    }
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_gradient_that_it_gives_padded(architecture, made, doubled):
    model = exact(made(architecture))
    padded, packed = (found(model, PolicySpec(model=""), POLICY, groups(), on) for on in (False, True))
    same(packed, padded, 1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [80, 4096])
def test_every_loss_gives_the_gradient_that_it_gives_padded(case, budget, made, doubled):
    loss, spec = CASES[case]
    model = exact(made("qwen3", trained=spec.lora is None))
    rows = pairs() if isinstance(loss, DPO | RewardModeling) else groups()
    padded, packed = (found(model, spec, loss, rows, on, budget=budget) for on in (False, True))
    same(packed, padded, 1e-10)


@pytest.mark.parametrize("members", [1, 2, 8])
@pytest.mark.parametrize("prompt", [1, 30])
def test_groups_of_any_size_agree_in_float32(members, prompt, made):
    rows = groups(sizes=(members, members), prompts=(prompt, prompt))
    model = made("qwen3")
    padded, packed = (found(model, PolicySpec(model=""), PPO(), rows, on) for on in (False, True))
    same(packed, padded, 1e-5)


def test_a_shared_prompt_is_run_once(made):
    model = made("qwen3")
    model.packed = True
    run: list[int] = []
    model.module.get_input_embeddings().register_forward_hook(lambda _, inputs, __: run.append(inputs[0].numel()))
    prompt = list(range(20, 60))
    rows = [datum([*prompt, *range(5, 5 + n)], [0.0] * 40 + [1.0] * n) for n in (1, 5, 9)]
    LocalPolicy(PolicySpec(model=""), model).forward(rows, CausalLM(), budget=4096)
    assert run == [40 + 0 + 4 + 8]


def test_scores_are_those_of_padded_sequences(made, doubled):
    model = exact(made("qwen3"))
    held = with_opinion(LocalPolicy(PolicySpec(model="", head="reward"), model))
    read = {}
    for model.packed in (False, True):
        read[model.packed] = held.forward(groups(), Reading(of="scores"), budget=256).scores
    assert read[True] == pytest.approx(read[False], abs=1e-5)


def test_plain_sequences_are_read_as_padded_ones_are(made, doubled):
    model = exact(made("llama"))
    sequences = [row.tokens.tolist() for row in groups()] + [[5]]
    read = {}
    with torch.no_grad():
        for model.packed in (False, True):
            read[model.packed] = reading.logprobs(model, sequences, temperature=0.7, budget=256)
    for packed, padded in zip(read[True], read[False], strict=True):
        np.testing.assert_allclose(packed, padded, atol=1e-6)


@pytest.mark.parametrize("layout", ["auto", "packed", "padded"])
def test_the_setting_says_how_a_model_is_run(layout, tiny, tmp_path):
    backend = LocalBackend(LocalEngine(layout=layout), checkpoints=tmp_path)
    backend.create_policy("a", PolicySpec(model=tiny))
    assert backend._policies["a"].model.packed == (layout != "padded")


def test_a_model_that_cannot_be_packed_is_padded_with_a_warning_and_refused_on_request(tmp_path, tiny, caplog):
    torch.manual_seed(0)
    module = MambaForCausalLM(MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=1, eos_token_id=3))
    for source in (saved(module, tiny, tmp_path / "mamba"), capped(30.0, tiny, tmp_path / "gemma2")):
        with caplog.at_level(logging.WARNING):
            LocalBackend(LocalEngine(), checkpoints=tmp_path).open(source)
        assert f"{source} is trained padded" in caplog.text
        with pytest.raises(ConfigError, match=r"engine.layout is packed, and .* cannot be: .*: use padded"):
            LocalBackend(LocalEngine(layout="packed"), checkpoints=tmp_path).open(source)


def test_a_small_difference_is_seen_through_bfloat16_arithmetic(tiny):
    device = torch.device("cpu")
    model = load_model(tiny, device=device, precision="bfloat16", trained=True)
    assert packs(model, "auto")

    def leaks(module: torch.nn.Module, inputs: object, output: BaseModelOutputWithPast) -> None:
        output.last_hidden_state += 0.01 * output.last_hidden_state.mean(1, keepdim=True)

    model.module.base_model.register_forward_hook(leaks)
    assert not packs(model, "auto")


def test_what_the_longest_sequence_changes_is_changed_by_none_beside_it(tiny, tmp_path, caplog):
    """Positions of other frequencies beyond 16 tokens, in a forward pass that has one so long."""
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16}
    config = LlamaConfig(**SHAPE, rope_parameters=rope | {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4})
    source = saved(AutoModelForCausalLM.from_config(config), tiny, tmp_path / "long")
    model = load_model(source, device=torch.device("cpu"), precision="float32", trained=False)
    assert not packs(model, "auto")
    assert "longrope" in caplog.text
    random = np.random.default_rng(0)
    sequences = [random.integers(5, 300, length).tolist() for length in (12, 30, 17, 18, 9)]
    with torch.no_grad():
        together = reading.logprobs(model, sequences, temperature=1.0, budget=4096)
        alone = [reading.logprobs(model, [each], temperature=1.0, budget=4096)[0] for each in sequences]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_head_that_caps_its_logits_is_packed_too(made, tmp_path, tiny, doubled):
    torch.manual_seed(0)
    config = Gemma3TextConfig(**SHAPE, head_dim=8, final_logit_softcapping=0.1)
    source = saved(Gemma3ForCausalLM(config), tiny, tmp_path / "capped")
    model = exact(load_model(source, device=torch.device("cpu"), precision="float32", trained=True))
    assert not model.head_is_one_matrix
    padded, packed = (found(model, PolicySpec(model=""), CausalLM(), groups(), on) for on in (False, True))
    same(packed, padded, 1e-10)


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
def test_bfloat16_and_few_bits_are_packed_too(quantization, tiny):
    device = torch.device("cpu")
    model = load_model(tiny, device=device, precision="bfloat16", trained=False, quantization=quantization)
    spec = PolicySpec(model=tiny, precision="bfloat16", lora=LoRA(rank=2), quantization=quantization)
    padded, packed = (found(model, spec, CausalLM(), groups(), on) for on in (False, True))
    assert (packed[1] - padded[1]).norm() < 0.1 * padded[1].norm()  # another's tokens would turn it altogether
    assert packed[0] == pytest.approx(padded[0], rel=0.01)


@pytest.fixture
def made(tiny: str, tmp_path: Path) -> Callable[..., LanguageModel]:
    """A model of an architecture, as the engine loads it."""

    def of(architecture: str, *, trained: bool = True) -> LanguageModel:
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]())
        for parameter in module.parameters():  # far from 0, so that attention attends to something
            parameter.data += 0.1 * torch.randn_like(parameter)
        source = saved(module, tiny, tmp_path / "model")
        return load_model(source, device=torch.device("cpu"), precision="float32", trained=trained)

    return of


def exact(model: LanguageModel) -> LanguageModel:
    """In float64 throughout: transformers' norms go through float32 whatever the model's type."""
    model.module.double()
    for module in model.module.modules():
        if type(module).__name__.endswith("RMSNorm"):
            epsilon = getattr(module, "eps", None) or module.variance_epsilon
            offset = 1 if "Gemma" in type(module).__name__ else 0
            module.forward = lambda x, m=module, e=epsilon, o=offset: (
                (o + m.weight) * x / (x**2).mean(-1, keepdim=True).add(e).sqrt()
            )
    return model


def with_opinion(held: LocalPolicy) -> LocalPolicy:
    if held.head is not None:
        held.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    return held


def found(
    model: LanguageModel, spec: PolicySpec, loss: LossConfig, rows: list[Datum], packed: bool, *, budget: int = 4096
) -> tuple[float, torch.Tensor]:
    """The loss and its gradient."""
    model.packed = packed
    held = with_opinion(LocalPolicy(spec, model))
    if held._adapter is not None:
        for name, parameter in held._adapter.parameters.items():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    result = held.forward_backward(rows, loss, budget=budget)
    return result.loss, torch.cat([p.grad.flatten().clone() for p in held._parameters.values() if p.grad is not None])


def same(found: tuple[float, torch.Tensor], expected: tuple[float, torch.Tensor], rounding: float) -> None:
    assert expected[1].abs().max() > 0
    torch.testing.assert_close(found[1], expected[1], atol=rounding * float(expected[1].abs().max()), rtol=0)
    assert found[0] == pytest.approx(expected[0], rel=max(rounding, 1e-7))


def groups(sizes: tuple[int, ...] = (1, 2, 8, 3), prompts: tuple[int, ...] = (12, 9, 17, 1)) -> list[Datum]:
    """Groups of completions of 1 to 15 tokens, some with an observation after them, in no particular order."""
    random = np.random.default_rng(0)
    rows = []
    for group, (members, beginning) in enumerate(zip(sizes, prompts, strict=True)):
        prompt = random.integers(5, 300, beginning)
        for member in range(members):
            reply, observed = int(random.integers(1, 16)) if member else 1, member % 3
            tokens = np.concatenate([prompt, random.integers(5, 300, reply + observed)])
            mask = [*[0] * beginning, *[1] * reply, *[0] * observed]
            streams = {name: random.normal(size=len(tokens)) for name in ("advantages", "returns", "old_values")}
            streams |= {name: -random.random(len(tokens)) for name in ("sampling_logprobs", "reference_logprobs")}
            rows.append(datum(tokens, mask, group=str(group), temperature=0.5 + member / 4, **streams))
    random.shuffle(rows)
    return rows


def pairs() -> list[Datum]:
    """Pairs of one prompt, three from each of two prompts, the chosen first or second."""
    random = np.random.default_rng(0)
    rows = []
    for pair, prompt in enumerate([random.integers(5, 300, 14)] * 3 + [random.integers(5, 500, 3)] * 3):
        for preferred in (pair % 2, 1 - pair % 2):
            reply = random.integers(5, 300, 1 + 3 * pair + preferred)
            mask = [*[0] * len(prompt), *[1] * len(reply)]
            rows.append(
                datum(
                    np.concatenate([prompt, reply]),
                    mask,
                    group=str(pair),
                    scalars={"preferred": preferred, "weight": 1.0 + pair},
                    reference_logprobs=-random.random(len(mask)),
                )
            )
    return rows
