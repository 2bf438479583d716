"""A model small enough to train while you watch: Qwen3's architecture, random weights, its own tokenizer."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from fettle.config import TinyModel
from fettle.randomness import key
from fettle.types import Message

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
ANSWER_TAGS = ("<answer>", "</answer>")
CALL_TAGS = ("<tool_call>", "</tool_call>")
TAG = re.compile("|".join((*ANSWER_TAGS, *CALL_TAGS)))
CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|system|>' }}{% for tool in tools %}"
    "{{ tool.function.name + '(' + (tool.function.parameters.properties or {}) | join(', ') + ')' }}"
    "{{ ' ' if not loop.last }}{% endfor %}{{ '<|end|>' }}{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% for call in message.tool_calls %}{{ '<tool_call>' }}"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson(separators=(',', ':')) }}"
    "{{ '</tool_call>' }}{% endfor %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PIECES = Regex(r"\p{N}|[ ]?[+\-=,][ ]?|\p{L}+:?[ ]?|\s|[^\s\p{L}\p{N}]")
"""What never shares a token: digits one by one, signs with their spaces, words with the space after them."""

INITIAL_STD = 0.05
"""Two and a half times the usual, which is meant for widths of thousands."""


def make_tiny_model(settings: TinyModel, folder: Path, *, texts: Iterable[str]) -> str:
    """Write a model and a tokenizer fitted to ``texts`` into ``folder``; returns the folder's name.

    The same settings and texts give the same files, bit for bit.
    """
    tokenizer = _tokenizer(settings, texts)
    config = tiny_config(settings)
    config.vocab_size = len(tokenizer)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(settings.seed, "tiny model"))
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_config(settings: TinyModel) -> Qwen3Config:
    """The architecture; its vocabulary may come out smaller once a tokenizer is fitted."""
    return Qwen3Config(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=8 * settings.hidden // 3,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads // 3 if settings.heads % 3 == 0 else 1,
        head_dim=settings.hidden // settings.heads,
        max_position_embeddings=settings.context,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        initializer_range=INITIAL_STD,
        tie_word_embeddings=True,
        pad_token_id=None,
        eos_token_id=None,
        bos_token_id=None,
    )


def text_of(message: Message) -> str:
    """What the template of a tiny model writes of a message: what it says, and what it calls."""
    calls = ({"name": call.name, "arguments": json.loads(call.arguments)} for call in message.tool_calls)
    written = (json.dumps(call, ensure_ascii=False, separators=(",", ":")) for call in calls)
    return message.content + "".join(f"{CALL_TAGS[0]}{call}{CALL_TAGS[1]}" for call in written)


def _tokenizer(settings: TinyModel, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE within ``PIECES``: whatever is written has tokens, and what is common has few.

    The tags around calls of tools have tokens where texts have such calls.
    """
    texts = list(texts)
    tags = (*ANSWER_TAGS, *(CALL_TAGS if any(CALL_TAGS[0] in text for text in texts) else ()))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[PAD, END, *ROLES, *tags],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((part for text in texts for part in TAG.split(text)), trainer)
    # The tags are one token each and yet text: a reply keeps them when its special tokens are stripped.
    bpe.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        model_max_length=settings.context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
