"""Small models made in code, for every test of the local engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fettle.config import TinyModel
from fettle.engine.local.tiny import make_tiny_model

TEXTS = [
    "State the final answer to the following arithmetic problem: 12 + 34 =",
    "Work it out.",
    "user\n",
    "assistant\n",
] * 20


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen3-architecture model of random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_model(TinyModel(hidden=32, layers=2, heads=2, context=128), folder, texts=TEXTS)


@pytest.fixture
def doubled(tiny: str, gpt2: str, llama: str) -> Iterator[None]:
    """Adapters and heads made inside are float64 too; the models that all tests share were made before."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def saved(model: torch.nn.Module, tokenizer_from: str, folder: Path) -> str:
    """A model of another architecture beside the tiny model's tokenizer."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text((Path(tokenizer_from) / name).read_text())
    return str(folder)


@pytest.fixture(scope="session")
def gpt2(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Learned positions, Conv1D layers, and dropout in its config."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=128, eos_token_id=3, bos_token_id=3)
    return saved(GPT2LMHeadModel(config), tiny, tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="session")
def llama(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untied head."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False, eos_token_id=3,
        bos_token_id=None,
    )  # fmt: skip
    return saved(LlamaForCausalLM(config), tiny, tmp_path_factory.mktemp("models") / "llama")


def capped(cap: float, tokenizer_from: str, folder: Path) -> str:
    """Gemma 2, which squashes its logits to within ``cap`` on the way out."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, head_dim=16,
        num_key_value_heads=1, max_position_embeddings=128, final_logit_softcapping=cap, pad_token_id=0,
    )  # fmt: skip
    return saved(Gemma2ForCausalLM(config), tokenizer_from, folder)
