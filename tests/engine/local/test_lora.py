"""Adapters: nothing at first, something after a step, and on disk what PEFT expects."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fettle.config import LoRA
from fettle.engine.local.lora import read_adapter, write_adapter
from fettle.engine.local.model import LanguageModel, load_model
from fettle.errors import CheckpointError, ConfigError, ModelError

CPU = torch.device("cpu")
TOKENS = torch.tensor([[5, 9, 300, 41, 7]])


def loaded(source: str, *, trained: bool = False) -> LanguageModel:
    return load_model(source, device=CPU, precision="float32", trained=trained)


def shaken(model: LanguageModel, settings: LoRA):
    """An adapter with values in B too, as after training."""
    adapter = model.slots.adapter(settings, seed=1)
    for _, up in adapter.layers.values():
        up.data.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    return adapter


def logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.module(input_ids=TOKENS).logits


def test_a_fresh_adapter_changes_nothing(tiny):
    model = loaded(tiny)
    before = logits(model)
    with model.slots.holding(model.slots.adapter(LoRA(rank=4), seed=0)):
        assert torch.equal(logits(model), before)


def test_the_adapter_is_in_the_model_only_while_it_is_held(tiny):
    model = loaded(tiny)
    adapter, before = shaken(model, LoRA(rank=4)), logits(model)
    with model.slots.holding(adapter):
        assert not torch.allclose(logits(model), before)
    assert torch.equal(logits(model), before)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore:fan_in_fan_out:UserWarning")
@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
def test_peft_reads_what_we_write(architecture, request, tmp_path):
    source = request.getfixturevalue(architecture)
    model = loaded(source)
    adapter = shaken(model, LoRA(rank=4, alpha=10))
    write_adapter(adapter, tmp_path, base_model=source)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), tmp_path).eval()
    with torch.no_grad(), model.slots.holding(adapter):
        torch.testing.assert_close(theirs(input_ids=TOKENS).logits, logits(model), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
def test_a_folder_with_an_adapter_is_its_base_with_the_adapter_merged(architecture, request, tmp_path):
    model = loaded(request.getfixturevalue(architecture))
    adapter = shaken(model, LoRA(rank=4))
    write_adapter(adapter, tmp_path, base_model=model.source)
    merged = loaded(str(tmp_path))
    with model.slots.holding(adapter):
        torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=1e-4)


def test_all_linear_is_every_linear_layer_but_the_head(tiny):
    paths = set(loaded(tiny).slots.adapter(LoRA(), seed=0).layers)
    per_layer = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {path.rpartition(".")[2] for path in paths} == per_layer
    assert len(paths) == 2 * len(per_layer)


def test_a_target_the_model_lacks_is_an_error_with_the_choices(tiny):
    with pytest.raises(ConfigError, match=r"'qproj', and the model's linear layers are .*q_proj"):
        loaded(tiny).slots.adapter(LoRA(targets=("qproj",)), seed=0)


def test_initial_values_depend_on_seed_and_layer_alone(tiny):
    def first(seed: int, targets: tuple[str, ...]) -> torch.Tensor:
        adapter = loaded(tiny).slots.adapter(LoRA(rank=4, targets=targets), seed=seed)
        return adapter.layers["model.layers.1.self_attn.q_proj"][0]

    assert torch.equal(first(0, ("q_proj",)), first(0, ("all-linear",)))
    assert not torch.equal(first(0, ("q_proj",)), first(1, ("q_proj",)))


def test_dropout_is_keyed_and_only_on_when_training(tiny):
    model = loaded(tiny)
    adapter = shaken(model, LoRA(rank=4, dropout=0.5))

    def drawn(seed: int | None) -> torch.Tensor:
        random = None if seed is None else torch.Generator().manual_seed(seed)
        with model.slots.holding(adapter, random=random):
            return logits(model)

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert not torch.equal(drawn(3), drawn(None))


def test_an_adapter_of_another_rank_is_refused(tiny, tmp_path):
    model = loaded(tiny)
    write_adapter(model.slots.adapter(LoRA(rank=4), seed=0), tmp_path, base_model=tiny)
    with pytest.raises(CheckpointError, match="another rank"):
        read_adapter(model.slots.adapter(LoRA(rank=8), seed=0), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_rslora", True), ("use_dora", True), ("rank_pattern", {"q_proj": 8}), ("modules_to_save", ["lm_head"]),
     ("bias", "all"), ("base_model_name_or_path", None), ("peft_type", "IA3")],
)  # fmt: skip
def test_an_adapter_of_another_kind_is_refused_not_merged_wrongly(tiny, tmp_path, key, value):
    model = loaded(tiny)
    write_adapter(shaken(model, LoRA(rank=4)), tmp_path, base_model=tiny)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelError, match=rf"cannot be used \({key}: .*plain LoRA adapters can"):
        loaded(str(tmp_path))


def test_an_adapter_without_its_weights_is_one_sentence(tiny, tmp_path):
    model = loaded(tiny)
    write_adapter(shaken(model, LoRA(rank=4)), tmp_path, base_model=tiny)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot be read .* it needs adapter_model\.safetensors"):
        loaded(str(tmp_path))
