"""The tokenizer of a model: a folder, or a name on the hub."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fettle.errors import ModelError


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


def _loaded(model: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(model)
    except (
        Exception
    ) as error:  # damaged files surface as whatever the parser trips over: KeyError, Exception itself, ...
        if Path(model).is_dir():
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
