"""Small models of many architectures, and decoders over them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import transformers
from transformers import PreTrainedModel

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local.decode import Decoder
from fettle.engine.local.forward import Voice, hosted
from fettle.engine.local.lean import lean_forward
from fettle.engine.local.lora import Slots
from fettle.engine.local.model import LanguageModel
from fettle.types import Completion

VOCABULARY, CONTEXT, END = 61, 160, 7
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END,
}  # fmt: skip
GPT2_SIZES = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END,
}  # fmt: skip
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
    "llama-eager": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, attn_implementation="eager")
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2_SIZES)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=5)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SIZES, sliding_window=5)),
    "bloom": lambda: transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    ),
    "mamba": lambda: transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8)
    ),
}
SHARED, GENERIC = ("qwen3", "llama", "llama-eager", "gpt2"), ("mistral", "gemma3", "bloom", "mamba")
PROMPTS = [[3, 14, 15], [9, 26, 5, 35, 8, 9, 7, 9, 32], [31], [4, 15, 9, 2, 6, 53]]


def make(name: str, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MODELS[name]().eval()


def decoder(
    model: PreTrainedModel, *, budget: int = 1 << 18, ends: frozenset[int] = frozenset(), lean: bool = False
) -> Decoder:
    return decoder_of(language_model(model), budget=budget, ends=ends, lean=lean)


def language_model(module: PreTrainedModel) -> LanguageModel:
    return LanguageModel(
        module=module, tokenizer=None, source="made", precision="float32", slots=Slots(module), context=CONTEXT,
        vocabulary=VOCABULARY, end_token_ids=frozenset(), head_is_one_matrix=True,
    )  # fmt: skip


def decoder_of(
    model: LanguageModel, *, budget: int = 1 << 18, ends: frozenset[int] = frozenset(), lean: bool = True
) -> Decoder:
    return Decoder(
        model.module,
        lean=partial(lean_forward, model) if lean else lambda _: None,
        hosting=partial(hosted, model.module, model.slots),
        end_token_ids=ends,
        decode_text=text_of,
        token_budget=budget,
        context=CONTEXT,
    )


def complete(decoder: Decoder, requests: Sequence[SampleRequest], *, version: int = 0) -> list[list[Completion]]:
    """All drawn from the model's own weights."""
    return decoder.complete(requests, [Voice(version)] * len(requests))


def text_of(tokens: Sequence[int]) -> str:
    """Two letters a token."""
    return "".join(chr(97 + token // 26) + chr(97 + token % 26) for token in tokens)


def requests(n: int = 2, prompts: Sequence[Sequence[int]] = PROMPTS, **params: object) -> list[SampleRequest]:
    return [SampleRequest(prompt, n, SamplingParams(**params)) for prompt in prompts]


def tokens_of(found: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.tokens for completion in completions] for completions in found]


@dataclass
class Seen:
    """What a model was run on."""

    prompt_tokens: int = 0
    steps: list[int] = field(default_factory=list)
    """Rows of each step."""


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[Seen]:
    """Every pass of the model, on the driven path and on the generic one."""
    seen = Seen()

    def note(_: torch.nn.Module, __: tuple[object, ...], inputs: dict[str, torch.Tensor]) -> None:
        rows, length = inputs["input_ids"].shape
        packed = inputs.get("attention_mask") is None
        if isinstance(inputs["logits_to_keep"], torch.Tensor) if packed else length > 1:
            seen.prompt_tokens += length if packed else int(inputs["attention_mask"].sum())
        else:
            seen.steps.append(rows * length)

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()
