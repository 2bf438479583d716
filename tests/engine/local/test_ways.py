"""How a model would be run is told before it is loaded, and is how it is run once it is."""

import re

import pytest
from transformers import BloomConfig, Gemma3TextConfig, MambaConfig, MistralConfig, Qwen2Config
from transformers.models.mistral import modeling_mistral

from fettle.config import LocalEngine, LoRA, PolicySpec, TinyModel
from fettle.engine.local import LocalBackend, capabilities

from .conftest import capped


@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
def test_known_architectures_are_packed_and_lean(architecture, request, tmp_path):
    source = request.getfixturevalue(architecture)
    told = capabilities(LocalEngine(), PolicySpec(model=source)).paths
    assert told["training"].startswith("packed: ")
    assert told["sampling"].startswith("lean: ")
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("a", PolicySpec(model=source))
    assert backend._policies["a"].model.packed


def test_a_tiny_model_is_told_of_before_it_is_made():
    assert capabilities(LocalEngine(), PolicySpec(model=TinyModel())).paths["training"].startswith("packed: ")


@pytest.mark.parametrize("config", [MambaConfig, BloomConfig])
def test_what_cannot_be_driven_is_padded_and_the_reason_given(config, tmp_path):
    config(num_hidden_layers=2, hidden_size=32, n_layer=2, n_head=2, vocab_size=64).save_pretrained(tmp_path)
    told = capabilities(LocalEngine(), PolicySpec(model=str(tmp_path))).paths
    assert re.match(r"padded: .{20}", told["training"])
    assert told["sampling"].startswith("generic: ")


def test_logits_that_are_capped_inside_attention_are_padded(tiny, tmp_path):
    assert (
        "softcap"
        in capabilities(LocalEngine(), PolicySpec(model=capped(30.0, tiny, tmp_path / "gemma2"))).paths["training"]
    )


def test_windows_that_attention_is_not_told_of_are_padded(tmp_path, monkeypatch):
    """Silence would be wrong: a window that only a mask knows is lost without the mask."""
    plain = modeling_mistral.MistralAttention.forward

    def silent(self, *args, **kwargs):
        window, self.config.sliding_window = self.config.sliding_window, None
        try:
            return plain(self, *args, **kwargs)
        finally:
            self.config.sliding_window = window

    monkeypatch.setattr(modeling_mistral.MistralAttention, "forward", silent)
    MistralConfig(num_hidden_layers=2, hidden_size=32, vocab_size=64, sliding_window=8).save_pretrained(tmp_path)
    assert "window" in capabilities(LocalEngine(), PolicySpec(model=str(tmp_path))).paths["training"]


def test_the_setting_rules_and_a_model_elsewhere_is_left_for_later():
    assert capabilities(LocalEngine(layout="padded"), PolicySpec(model=TinyModel())).paths["training"] == (
        "padded: engine.layout says so"
    )
    assert (
        "when the model is loaded"
        in capabilities(LocalEngine(), PolicySpec(model="nobody/has-this-0.5B")).paths["training"]
    )
    assert capabilities(LocalEngine()).paths == {}


def test_a_quantized_base_is_driven_as_it_is_told(tiny, tmp_path):
    spec = PolicySpec(model=tiny, lora=LoRA(), quantization="int8")
    assert capabilities(LocalEngine(), spec).paths["sampling"].startswith("driven: ")
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("a", spec)
    assert backend._decoder(backend._policies["a"].model).path == "driven"


@pytest.mark.parametrize("config", [MistralConfig, Gemma3TextConfig])
def test_a_window_is_told_of(config, tmp_path):
    config(num_hidden_layers=2, hidden_size=32, vocab_size=64, sliding_window=24).save_pretrained(tmp_path)
    told = capabilities(LocalEngine(), PolicySpec(model=str(tmp_path))).paths["sampling"]
    assert told.startswith("lean: ")
    assert told.endswith("; generic where prompt and max_tokens are over 24 tokens")


def test_a_window_that_no_layer_has_is_not_told_of(tmp_path):
    Qwen2Config(num_hidden_layers=2, hidden_size=32, vocab_size=64, sliding_window=24).save_pretrained(tmp_path)
    assert "over" not in capabilities(LocalEngine(), PolicySpec(model=str(tmp_path))).paths["sampling"]
