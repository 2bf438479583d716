"""A model small enough to train while you watch: Qwen3's architecture, random weights, its own tokenizer."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from fettle.config import TinyModel
from fettle.engine.local.randomness import key

PAD, END, START, STOP = "<|pad|>", "<|end|>", "<|im_start|>", "<|im_end|>"
ANSWER_TAGS = ("<answer>", "</answer>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tiny_model(settings: TinyModel, folder: Path, *, texts: Iterable[str]) -> str:
    """Write a model and a tokenizer fitted to ``texts`` into ``folder``; returns the folder's name.

    The same settings and texts give the same files, bit for bit.
    """
    tokenizer = _tokenizer(settings, texts)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=max(1, settings.heads // 2),
        head_dim=settings.hidden // settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(STOP),
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(settings.seed, "tiny model"))
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _tokenizer(settings: TinyModel, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each digit and each line break is a token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [PAD, END, START, STOP]
    size = settings.vocabulary - len(ANSWER_TAGS)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(_without_tags(texts), trainer)
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in ANSWER_TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, model_max_length=settings.context, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _without_tags(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for tag in ANSWER_TAGS:
            text = text.replace(tag, " ")
        yield text
