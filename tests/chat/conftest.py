"""A small byte-level tokenizer made in code, and chat templates of several families."""

import functools
from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fettle.chat import Template

from . import tool_templates

TEXTS = [
    "What is 12 + 34? The answer is 46.\n\nWork it out, then say it.\n\n\n",
    "user\nassistant\nsystem\ntool\n  INST  ",
] * 40

# Earlier reasoning is dropped, and a last turn without any is given an empty block.
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role != 'assistant' %}{{ m.content }}"
    "{% elif not loop.last %}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{% elif '</think>' in m.content %}{{ m.content }}"
    "{% else %}<think>\n\n</think>\n\n{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "instruct": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'assistant' %} {{ m.content.strip() }} {{ eos_token }}"
        "{% elif m.role == 'user' %}[INST] {{ m.content.strip() }} [/INST]"
        "{% else %}{{ raise_exception('only users and assistants speak here') }}{% endif %}{% endfor %}"
    ),
    "tagged": (  # turns end with a token that is not marked as special
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</turn>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    ),
    "plain": (  # no token ends a turn: a line does
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    ),
    "reasoning": REASONING,
    "always reasoning": REASONING.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"),
    "ends only the last": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% if loop.last and m.role == 'assistant' %}<|im_end|>{% else %}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    ),
    "forgets replies": "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}\n{% endif %}{% endfor %}",
    "shouts": "{% for m in messages %}{{ m.content | upper if m.role == 'user' else m.content }}\n{% endfor %}",
    "numbers": (
        "{% for m in messages %}{{ m.content | length if m.role == 'user' and 'W' in m.content else m.content }}\n"
        "{% endfor %}"
    ),
    "broken": "{% for m in messages %}{{ m.content }}",
    **tool_templates.TEMPLATES,
}


def made(template: str, *, spaces_first: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with one of the templates above; ``spaces_first`` puts a space before any text, as older ones do."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    if spaces_first:
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "[TOOL_CALLS]"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in ("<think>", "</think>", "</turn>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<s>")
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def tokenizers() -> Callable[[str], PreTrainedTokenizerFast]:
    """By the name of the template: one instance each."""
    return functools.cache(lambda name: made(TEMPLATES[name]))


@pytest.fixture(scope="session")
def templates(tokenizers) -> Callable[[str], Template]:
    """By name."""
    return functools.cache(lambda name: Template(tokenizers(name)))


@pytest.fixture(scope="session")
def spaces_first() -> PreTrainedTokenizerFast:
    """One that puts a space before any text that it is given."""
    return made(TEMPLATES["chatml"], spaces_first=True)
