"""The models of the benchmarks: Qwen3 of random weights, made here, with a tokenizer of bytes."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.harness import CACHE

PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL = (PAD, END, USER, ASSISTANT, SYSTEM)
PAD_ID, END_ID, FIRST_ID = 0, 1, len(SPECIAL)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
FRAME = 3
"""Tokens that the template puts around a prompt."""
ENDS = 1 / 20
"""How likely the end token is, wherever one is drawn: completions have a mean length of about 20."""


@dataclass(frozen=True, slots=True)
class Size:
    """The shape of a model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int = 2048
    rope_theta: float = 10_000.0
    initial_std: float = 0.02


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "tiny": Size(128, 4, 4, 2, 32, 384, 512),
        "small": Size(384, 8, 6, 2, 64, 1152, 8192),
        "large": Size(2048, 24, 16, 8, 128, 6144, 151_936),
    }
)
"""0.85 million, 17 million and, for GPUs, 1.5 billion parameters."""


def folder(size: str, *, ends: float | None = ENDS) -> str:
    """The folder of a model that ends what it writes with probability ``ends`` at each token; made if need be.

    The probability is in the weights, so that every program that runs the model sees it: one channel of the residual
    stream is kept constant, and the end token's row of the (tied) head reads it.
    """
    recipe = {"size": asdict(SIZES[size]), "ends": ends, "seed": 0}
    return cached(size, recipe, lambda place: make(SIZES[size], ends, place))


def cached(name: str, recipe: Mapping[str, Any], make: Callable[[Path], None]) -> str:
    """The folder that a recipe makes; it is made once, and its name tells the recipe."""
    told = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    place = CACHE / "models" / f"{name}-{told}"
    if not place.is_dir():
        scratch = place.with_name(f".{place.name}.partial")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        make(scratch)
        scratch.rename(place)
    return str(place)


def tokenizer(vocabulary: int, context: int) -> Any:
    """One token a byte, and further tokens, never written, up to the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"w{index}" for index in range(len(names), vocabulary)]
    bpe = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def framed(prompt: str) -> str:
    """A prompt as the template writes it."""
    return f"{USER}{prompt}{END}{ASSISTANT}"


def make(size: Size, ends: float | None, place: Path) -> None:
    """Write a model and its tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=size.vocabulary,
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            head_dim=size.head_dim,
            max_position_embeddings=size.context,
            rope_parameters={"rope_type": "default", "rope_theta": size.rope_theta},
            initializer_range=size.initial_std,
            tie_word_embeddings=True,
            pad_token_id=PAD_ID,
            eos_token_id=END_ID,
            bos_token_id=None,
        )
    )
    if ends is not None:
        _end_with(model, ends, size)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = PAD_ID, END_ID
    model.save_pretrained(place)
    tokenizer(size.vocabulary, size.context).save_pretrained(place)


def _end_with(model: Any, ends: float, size: Size) -> None:
    """Make the end token as likely as ``ends``, whatever stands before."""
    import torch

    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight  # [V, H], the head's own
        embeddings[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        tokens = torch.randint(FIRST_ID, size.vocabulary, (8, 64), generator=torch.Generator().manual_seed(0))
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)  # [N, H]
        logits = hidden @ embeddings.T
        others = torch.cat([logits[:, :END_ID], logits[:, END_ID + 1 :]], 1).logsumexp(1)
        odds = torch.logit(torch.tensor(ends))
        embeddings[END_ID, 0] += ((others + odds - logits[:, END_ID]) / hidden[:, 0]).mean()
