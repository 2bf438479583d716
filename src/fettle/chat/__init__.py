"""Messages to tokens and back, with the model's own chat template."""

from fettle.chat.template import Template
from fettle.chat.tokenizer import load_tokenizer

__all__ = ["Template", "load_tokenizer"]
