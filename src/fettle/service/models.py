"""The base models that are served: their names, tokenizers and files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, PreTrainedTokenizerBase

from fettle.chat import Template
from fettle.chat.tokenizer import tokenizer_of
from fettle.config import ServedModel
from fettle.errors import LossInputError, ModelError, NotFoundError, did_you_mean

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "config.json",
    "generation_config.json",
)
"""What clients on other machines may fetch: everything that a tokenizer is read from, and no weights."""

ADAPTER = "adapter_config.json"
"""In the folder of an adapter, whose base model is somewhere else."""


@dataclass(frozen=True)
class Model:
    """One base model."""

    name: str
    path: str
    """What the engine loads."""
    aliases: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    context: int
    """Longest sequence, in tokens."""
    vocabulary: int
    """Token ids are below it."""
    parameters: int
    """Of its weights; 0 where they are not in a folder here."""

    @cached_property
    def template(self) -> Template:
        """Its conversations.

        Raises:
            ModelError: it has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise ModelError(f"the model {self.name} has no chat template: send tokens or text instead of messages")
        return Template(self.tokenizer)

    def tokens_of(self, text: str) -> list[int]:
        """The tokens of a text, with no special ones put around it.

        Raises:
            LossInputError: there is half a character in it.
        """
        if not text.isascii():
            _check_characters(text)
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return found

    def text_of(self, tokens: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of tokens.

        Raises:
            LossInputError: the vocabulary has no such token.
        """
        for token in tokens:
            if not 0 <= token < self.vocabulary:
                raise LossInputError(f"there is no token {token}: ids of {self.name} are 0 to {self.vocabulary - 1}")
        text: str = self.tokenizer.decode(
            list(tokens), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def file(self, name: str) -> Path:
        """One of the files that its tokenizer is read from.

        Raises:
            NotFoundError: it has no such file, or it is none of those.
        """
        path = Path(self.path) / name
        if name not in TOKENIZER_FILES or not path.is_file():
            raise NotFoundError(f"the model {self.name} has no file {name!r}: it has {', '.join(self.files)}")
        return path

    @property
    def files(self) -> list[str]:
        """Names of those files."""
        return [name for name in TOKENIZER_FILES if (Path(self.path) / name).is_file()]


class Models:
    """Every base model that is served, by name and alias. Tokenizers are read when this is made.

    Raises:
        ModelError: a model has no tokenizer or no configuration that can be read.
    """

    def __init__(self, served: Sequence[ServedModel]) -> None:
        self._models = [_read(model) for model in served]
        self._by_name = {name: model for model in self._models for name in (model.name, *model.aliases)}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models)

    def named(self, name: str) -> Model:
        """The model of that name or alias.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self._by_name:
            names = ", ".join(model.name for model in self._models)
            raise NotFoundError(f"no model is served as {name!r}: use {names}{did_you_mean(name, self._by_name)}")
        return self._by_name[name]


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LossInputError(
            f"the text has half a character at {error.start} (a lone surrogate): send whole ones"
        ) from error


def _read(served: ServedModel) -> Model:
    if (Path(served.path) / ADAPTER).is_file():
        raise ModelError(
            f"the model {served.path} is an adapter: name its base model, or a checkpoint of whole weights"
        )
    tokenizer = tokenizer_of(served.path)
    try:
        settings = AutoConfig.from_pretrained(served.path)
    except (OSError, ValueError) as error:
        raise ModelError(f"the model {served.path} has no configuration that can be read: {error}") from error
    text: Any = settings.get_text_config()
    return Model(
        name=served.name,
        path=served.path,
        aliases=served.aliases,
        tokenizer=tokenizer,
        context=int(text.max_position_embeddings),
        vocabulary=int(text.vocab_size),
        parameters=_parameters(Path(served.path)),
    )


def _parameters(folder: Path) -> int:
    """Numbers in the weights, as the files' headers say."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total
