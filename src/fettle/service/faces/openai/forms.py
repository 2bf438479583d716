"""What answers look like: those of completions and those of chats, whole and in pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fettle.service.faces.openai.bodies import ChatBody, CompletionBody
from fettle.service.faces.openai.choices import Choice, Ending
from fettle.service.faces.openai.speaker import Speaker
from fettle.service.faces.openai.told import Told, as_chat, as_completions, drawn, within
from fettle.types import Completion, ToolCall

Json = dict[str, Any]


class Form(Protocol):
    """One kind of answer. ``place`` counts choices: the completions of the first prompt, then the next prompt's."""

    prefix: str
    kind: str
    chunk_kind: str

    def choice(self, place: int) -> Choice:
        """A choice of which nothing is known yet."""
        ...

    def opening(self, place: int) -> Json:
        """What a stream says of a choice before its first token."""
        ...

    def piece(self, place: int, text: str) -> Json:
        """More text of a choice."""
        ...

    def closing(self, place: int, ending: Ending, completion: Completion) -> list[Json]:
        """What a stream says once a choice has ended."""
        ...

    def whole(self, place: int, choice: Choice, ending: Ending, completion: Completion) -> Json:
        """A choice in an answer that does not come in pieces."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of a completion: its text, and its tokens with what was read of them, if that was asked for."""

    tokens: list[int]
    text: str
    told: list[Told]


class CompletionForm:
    """Texts that go on from prompts."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, body: CompletionBody, speaker: Speaker, prompts: Sequence[Prompt]) -> None:
        self._body, self._speaker, self._prompts = body, speaker, prompts

    def choice(self, place: int) -> Choice:
        """A choice whose text stands right after its prompt's."""
        return Choice(self._speaker, stop=self._body.stops, before=self._prompt(place).tokens)

    def opening(self, place: int) -> Json:
        """The prompt, where it is to be echoed."""
        return self.piece(place, self._prompt(place).text if self._body.echo else "")

    def piece(self, place: int, text: str) -> Json:
        """More text."""
        return {"index": place, "text": text, "logprobs": None, "finish_reason": None}

    def closing(self, place: int, ending: Ending, completion: Completion) -> list[Json]:
        """The last text, with the log-probabilities of all tokens."""
        return [self._last(place, ending.text, ending, completion)]

    def whole(self, place: int, choice: Choice, ending: Ending, completion: Completion) -> Json:
        """The text, after its prompt where that is to be echoed."""
        echoed = self._prompt(place).text if self._body.echo else ""
        return self._last(place, echoed + choice.text, ending, completion, text=choice.text)

    def _last(self, place: int, shown: str, ending: Ending, completion: Completion, text: str | None = None) -> Json:
        logprobs = self._logprobs(place, ending, completion, text)
        return {"index": place, "text": shown, "logprobs": logprobs, "finish_reason": ending.reason}

    def _logprobs(self, place: int, ending: Ending, completion: Completion, text: str | None) -> Json | None:
        asked = self._body.logprobs
        if asked is None:
            return None
        prompt, told = self._prompt(place), drawn(completion)
        if ending.cut:
            told = within(told, self._speaker, ending.text if text is None else text)
        if not self._body.echo:
            return as_completions(told, self._speaker, asked=asked)
        before = as_completions(prompt.told, self._speaker, asked=asked)
        after = as_completions(told, self._speaker, asked=asked, offset=len(prompt.text))
        return {name: before[name] + after[name] if asked or before[name] else after[name] for name in before}

    def _prompt(self, place: int) -> Prompt:
        return self._prompts[place // self._body.n]


class ChatForm:
    """Messages of an assistant."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, body: ChatBody, speaker: Speaker) -> None:
        self._body, self._speaker = body, speaker

    def choice(self, place: int) -> Choice:
        """A choice that may call the tools that were offered."""
        return Choice(self._speaker, stop=self._body.stops, calls=bool(self._body.offered))

    def opening(self, place: int) -> Json:
        """Who speaks."""
        return self._chunk(place, {"role": "assistant", "content": ""})

    def piece(self, place: int, text: str) -> Json:
        """More of what is said."""
        return self._chunk(place, {"content": text})

    def closing(self, place: int, ending: Ending, completion: Completion) -> list[Json]:
        """The last text and the calls, the log-probabilities with them; then why it ended."""
        delta: Json = {"content": ending.text} if ending.text else {}
        if ending.calls:
            delta["tool_calls"] = [{"index": place, **_call(call)} for place, call in enumerate(ending.calls)]
        logprobs = self._logprobs(ending, completion, ending.text)
        last = self._chunk(place, {})
        last["finish_reason"] = ending.reason
        return [{**self._chunk(place, delta), "logprobs": logprobs}, last] if delta or logprobs else [last]

    def whole(self, place: int, choice: Choice, ending: Ending, completion: Completion) -> Json:
        """The message."""
        message: Json = {"role": "assistant", "content": choice.text, "refusal": None}
        if ending.calls:
            message |= {"content": choice.text or None, "tool_calls": [_call(call) for call in ending.calls]}
        logprobs = self._logprobs(ending, completion, choice.text)
        return {"index": place, "message": message, "logprobs": logprobs, "finish_reason": ending.reason}

    def _chunk(self, place: int, delta: Json) -> Json:
        return {"index": place, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, ending: Ending, completion: Completion, text: str) -> Json | None:
        if not self._body.logprobs:
            return None
        told = drawn(completion)
        return as_chat(within(told, self._speaker, text) if ending.cut else told, self._speaker)


def _call(call: ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
