"""Messages to tokens and back, with the model's own chat template."""

from fettle.chat.template import Template
from fettle.chat.tokenizer import check_same_tokenizer, load_tokenizer

__all__ = ["Template", "check_same_tokenizer", "load_tokenizer"]
