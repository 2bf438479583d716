"""The tokenizer of a model: a folder, or a name on the hub."""

import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fettle.errors import ModelError

logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it says of each attempt is said once, by the error


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer that lies with ``model``, which must know how to write a conversation.

    Raises:
        ModelError: there is no such model, its tokenizer cannot be read, or it has no chat template.
    """
    tokenizer = _loaded(model)
    template = tokenizer.chat_template
    if not template or (isinstance(template, dict) and "default" not in template):
        raise ModelError(
            f"the tokenizer of {model} has no chat template: put a chat_template.jinja beside it, "
            "or start from an instruction-tuned model"
        )
    return tokenizer


def tokenizer_of(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer that lies with ``model``, whether or not it can write a conversation.

    Raises:
        ModelError: there is no such model, or its tokenizer cannot be read.
    """
    return _loaded(model)


def check_same_tokenizer(model: str, other: str) -> None:
    """Refuse a pair of models that do not speak of the same tokens: one's log-probabilities say nothing to the other.

    Raises:
        ModelError: their vocabularies or special tokens differ, or a tokenizer cannot be read.
    """
    if other == model:
        return
    ours, theirs = _loaded(model), _loaded(other)
    mine, its = ours.get_vocab(), theirs.get_vocab()
    apart = [token for token in {**mine, **its} if mine.get(token) != its.get(token)]
    special = sorted(set(ours.all_special_tokens) ^ set(theirs.all_special_tokens))
    if apart or special:
        what = f"{apart[0]!r} and {len(apart) - 1} more tokens" if apart else f"the special tokens {', '.join(special)}"
        raise ModelError(
            f"the tokenizer of {other} is not that of {model}; they differ in {what}: "
            "name a model of the same family, with the same tokenizer"
        )


def hub_is_out_of_reach() -> bool:
    """Whether the hub's name cannot even be looked up, so that most of a minute of attempts would be for nothing."""
    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, "https")
    except OSError:
        return True
    return False


def _loaded(model: str) -> PreTrainedTokenizerBase:
    here = Path(model).is_dir()
    if not here and (Path(model).is_absolute() or model.startswith(".")):
        raise ModelError(
            f"there is no model folder {model}: give a folder with config.json and *.safetensors, or a hub name"
        )
    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=here or hub_is_out_of_reach())
    except (
        Exception
    ) as error:  # damaged files surface as whatever the parser trips over: KeyError, Exception itself, ...
        if here:
            what = f"{type(error).__name__}: {_first_line(error)}"
            message = f"the folder {model} holds no tokenizer that can be read ({what}): save the tokenizer there again"
        elif isinstance(error, OSError):
            message = (
                f"there is no folder {model}, and the hub gave no model of that name ({_first_line(error)}): "
                "check the name, or download it while there is a network"
            )
        else:
            what = f"{type(error).__name__}: {_first_line(error)}"
            message = f"the tokenizer of {model} cannot be read ({what}): download it again"
        raise ModelError(message) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".:, ")
