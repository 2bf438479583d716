"""Driving attention: what can be, and a reason for what cannot."""

from types import SimpleNamespace

import pytest
from transformers import LlamaConfig, ModernBertDecoderConfig, T5Config

from fettle.engine.local.attention import _current, attending, undrivable

SHAPE = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3,
}  # fmt: skip


def rotating(kind: str, **settings: object) -> LlamaConfig:
    return LlamaConfig(**SHAPE, rope_parameters={"rope_type": kind, "rope_theta": 1e4, **settings})


def test_a_config_of_no_causal_language_model_is_a_reason():
    assert "no causal language model can be made of a T5Config" in undrivable(T5Config())


def test_a_config_that_must_name_a_padding_token_is_tried_as_any_other():
    config = ModernBertDecoderConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=3, cls_token_id=1, sep_token_id=3,
    )  # fmt: skip
    assert undrivable(config) == ""
    assert config.pad_token_id == 0


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("longrope", {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 16}),
        ("dynamic", {"factor": 2.0}),
    ],
)
def test_positions_that_depend_on_the_whole_forward_pass_are_a_reason(kind, settings):
    assert f"its positions ({kind}) depend on the longest sequence" in undrivable(rotating(kind, **settings))


@pytest.mark.parametrize(("kind", "settings"), [("default", {}), ("linear", {"factor": 2.0})])
def test_positions_that_always_mean_the_same_can_be_driven(kind, settings):
    assert undrivable(rotating(kind, **settings)) == ""


def test_an_attention_that_cannot_be_set_is_not_held():
    def refuses(name: str) -> None:
        if name != "before":
            raise ValueError(name)

    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="before"), set_attn_implementation=refuses)
    with pytest.raises(ValueError, match="fettle"), attending(model, None):
        pass
    assert _current.get("nobody") == "nobody"
