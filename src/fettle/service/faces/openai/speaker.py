"""A served model's words: messages and texts to the tokens of a prompt, and drawn tokens to text."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from fettle.chat.tool_calls import ToolFormat, takes_tools, tool_format
from fettle.errors import DataError
from fettle.service.faces.openai.bodies import ChatMessage, Tool
from fettle.service.faces.openai.speech import Speech
from fettle.service.faces.openai.vocabulary import Vocabulary
from fettle.service.models import Model


class Speaker:
    """One model's words, as this face speaks them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.vocabulary = Vocabulary(model.tokenizer)
        self._tokenizer = model.tokenizer
        self._special = frozenset(model.tokenizer.all_special_ids)

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """How the model writes calls of tools; None where that cannot be read."""
        return tool_format(self._tokenizer)

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that end what an assistant says.

        Raises:
            ModelError: it has no chat template.
        """
        return tuple(sorted(self.model.template.end_token_ids))

    def chat(self, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> list[int]:
        """The conversation as the model's template writes it, up to where the assistant speaks.

        Raises:
            DataError: the template refuses it, or takes no tools.
            ModelError: it has no chat template.
        """
        name, _ = self.model.name, self.model.template
        if tools and not takes_tools(self._tokenizer):
            raise DataError(f"the chat template of {name} takes no tools: leave tools out, or use another model")
        rows = [_row(message) for message in messages]
        schemas = [tool.model_dump(exclude={"function": {"strict"}}) for tool in tools] or None
        try:
            text: str = self._tokenizer.apply_chat_template(
                rows, tools=schemas, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError) as error:
            roles = ", ".join(message.role for message in messages)
            raise DataError(f"the chat template of {name} refuses a conversation of {roles}: {error}") from error
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return tokens

    def text(self, prompt: str) -> list[int]:
        """The tokens of a text, with those that the model's texts begin with."""
        tokens: list[int] = self._tokenizer.encode(prompt, verbose=False)
        return tokens

    def speech(self, *, stop: Sequence[str] = (), before: Sequence[int] = (), calls: bool = False) -> Speech:
        """The text of one completion to come; with ``calls`` the mark of a call is text, even if its token is not."""
        mark = self._tokenizer.convert_tokens_to_ids(self.tool_format.mark) if calls and self.tool_format else None
        silent = self._special - {mark}
        return Speech(self.decoded, silent=silent, stop=stop, before=before)

    def decoded(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        text: str = self._tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        return text


def _row(message: ChatMessage) -> Mapping[str, Any]:
    """A message as chat templates take it: they know no developer, and take arguments as objects."""
    row: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
    if message.name:
        row["name"] = message.name
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {"name": call.function.name, "arguments": call.function.parsed},
            }
            for call in message.tool_calls
        ]
    return row
