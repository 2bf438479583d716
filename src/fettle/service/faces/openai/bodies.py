"""What a request of the OpenAI API may say here."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from fettle.service.faces.openai.fields import known_fields, refused

MOST_CHOICES = 128
"""``n`` of one request."""
MOST_PROMPTS = 1024
MOST_COMPLETIONS = 4096
"""Of one request: its prompts times ``n``."""
Text = Annotated[StrictStr, Field(min_length=1)]
LongText = Annotated[StrictStr, Field(max_length=4_000_000)]
Tokens = Annotated[list[StrictInt], Field(max_length=1_000_000)]


def _or_say(message: str) -> WrapValidator:
    """One error for all forms that a field may have."""

    def validated(given: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            return validate(given)
        except ValidationError:
            raise refused(message.partition(" ")[0], message) from None

    return WrapValidator(validated)


Prompt = Annotated[
    LongText
    | Annotated[list[LongText], Field(max_length=MOST_PROMPTS)]
    | Tokens
    | Annotated[list[Tokens], Field(max_length=MOST_PROMPTS)],
    _or_say(f"prompt can be a text, tokens, or a list of up to {MOST_PROMPTS} texts or lists of tokens"),
]
Stop = Annotated[
    Text | Annotated[list[Text], Field(max_length=4)],
    _or_say("stop can be a text or up to 4 texts, none of them empty"),
]


class Body(BaseModel):
    """Fields of the API that are not read here are refused by name, unless they ask for nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: object) -> object:
        return known_fields(given, cls.model_fields)


class StreamOptions(Body):
    """What a stream holds besides."""

    include_usage: bool = False
    """One more chunk at the end, with no choices and the tokens counted."""
    include_obfuscation: bool = False
    """Taken, and nothing is added: lengths of chunks are what they are."""


class Drawing(Body):
    """How tokens are drawn, in both kinds of request."""

    model: Annotated[str, Field(min_length=1)]
    """A served model, ``run:`` and a run's id, or a checkpoint."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    """Completions of each prompt."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Most tokens of one completion."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """0 takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the likeliest tokens that together hold this probability are drawn."""
    stop: Stop = []
    """Up to 4 texts, before which a completion ends."""
    seed: int | None = None
    """The same request with the same seed on the same weights draws the same tokens."""
    stream: bool = False
    """Whether the answer comes in pieces, as server-sent events."""
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        """As a list, however they were given."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @model_validator(mode="after")
    def _options_are_for_streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "stream_options are for streams: set stream, or leave them out")
        return self


class CompletionBody(Drawing):
    """``POST /v1/completions``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "qwen3-0.6b", "prompt": "One, two,", "max_tokens": 8, "logprobs": 1}]}
    )

    prompt: Prompt
    """A text, tokens, or a list of either."""
    echo: bool = False
    """Whether the prompt stands before each completion; with ``max_tokens`` 0 it is only read."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Log-probabilities of the tokens, and so many of the likeliest at each place."""

    @model_validator(mode="after")
    def _there_is_something_to_answer(self) -> Self:
        if not self.prompts:
            raise refused("prompt", "prompt is empty: give a text, tokens, or a list of either")
        if len(self.prompts) * self.n > MOST_COMPLETIONS:
            raise refused(
                "n", f"n is {self.n} for {len(self.prompts)} prompts: at most {MOST_COMPLETIONS} are drawn at once"
            )
        if self.max_tokens == 0 and (self.stream or not self.echo):
            raise refused(
                "max_tokens", "max_tokens is 0, and nothing would be drawn: use 1 or more, or echo unstreamed"
            )
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """One prompt or several, as a list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens = [part for part in self.prompt if isinstance(part, int)]
        if tokens:
            return [tokens]
        return [part for part in self.prompt if not isinstance(part, int)]


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    """Images, sounds and files are not read here."""
    text: str


class FunctionCalled(Body):
    """What an assistant called."""

    name: str
    arguments: str = "{}"
    """A JSON object, as text."""

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments as templates take them."""
        parsed: dict[str, Any] = json.loads(self.arguments or "{}")
        return parsed

    @model_validator(mode="after")
    def _arguments_are_an_object(self) -> Self:
        try:
            is_object = isinstance(self.parsed, dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise refused(
                "messages", f"the arguments of a call of {self.name} are no JSON object: {self.arguments[:200]!r}"
            )
        return self


class ToolCalled(Body):
    """One call in an assistant's message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCalled


class ChatMessage(Body):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] = ""
    name: str = ""
    tool_calls: list[ToolCalled] = []
    tool_call_id: str = ""

    @model_validator(mode="before")
    @classmethod
    def _as_answered(cls, given: object) -> object:
        """A message of an earlier answer is given back as it came, with fields that say nothing."""
        empty = ("annotations", "audio", "function_call", "refusal")
        return {k: v for k, v in given.items() if v or k not in empty} if isinstance(given, dict) else given

    @property
    def text(self) -> str:
        """The content, its parts joined."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(Body):
    """The form of an answer."""

    type: Literal["text"]
    """Only text: no other form is enforced here."""


class Function(Body):
    """A function that may be called."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    parameters: dict[str, Any] = {}
    """A JSON schema."""
    strict: Literal[False] = False
    """Arguments are the model's own: no schema is enforced."""


class Tool(Body):
    """A tool that the model is told of."""

    type: Literal["function"]
    function: Function


class ChatBody(Drawing):
    """``POST /v1/chat/completions``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "qwen3-0.6b", "messages": [{"role": "user", "content": "2 + 3 ="}]}]}
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of one answer; the newer name of ``max_tokens``."""
    logprobs: bool = False
    """Whether the log-probability of each token is told."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    """So many of the likeliest tokens at each place; with ``logprobs``."""
    tools: Annotated[list[Tool], Field(max_length=1024)] = []
    """Written into the prompt by the model's own template."""
    tool_choice: Literal["auto", "none"] = "auto"
    """``none`` leaves the tools out; a call cannot be enforced."""
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise refused("top_logprobs", "top_logprobs goes with logprobs: set logprobs to true as well")
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise refused("max_tokens", "max_tokens and max_completion_tokens differ: give one of them")
        if self.limit == 0:
            raise refused("max_tokens", "max_tokens is 0, and nothing would be answered: use 1 or more")
        return self

    @property
    def limit(self) -> int | None:
        """Most tokens, by either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model is told of."""
        return [] if self.tool_choice == "none" else self.tools
