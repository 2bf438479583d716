"""One completion as a client is told of it: text once it is certain, calls of tools once they are whole."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fettle.service.faces.openai.speaker import Speaker
from fettle.types import Completion, ToolCall

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known once a completion has ended."""

    text: str
    """What had not been told yet."""
    calls: list[ToolCall]
    reason: FinishReason
    cut: bool
    """Whether a stop string ended the text: tokens that it was made of are not told."""


class Choice:
    """One completion. With ``calls`` nothing is told of the text of a call: it is in the ending.

    ``before`` are the prompt's tokens, if its text goes on in the completion.
    """

    text: str = ""
    """What has been told."""

    def __init__(
        self, speaker: Speaker, *, stop: Sequence[str] = (), before: Sequence[int] = (), calls: bool = False
    ) -> None:
        self._format = speaker.tool_format if calls else None
        mark = [self._format.mark] if self._format and self._format.mark else []
        self._speech = speaker.speech(stop=[*stop, *mark], before=before, calls=calls)
        self._whole = speaker.speech(stop=stop, before=before, calls=calls)
        self._told_late = self._format is not None and not mark  # any reply may turn out to be a call
        self._heard = 0
        self._all = ""

    def add(self, token: int) -> str:
        """The text that is told with one more token."""
        self._heard += 1
        if self._format is not None:
            self._all += self._whole.add(token)
        new = "" if self._told_late else self._speech.add(token)
        self.text += new
        return new

    def ended(self, completion: Completion) -> Ending:
        """Nothing more will come; tokens of ``completion`` that were not added are now."""
        before = len(self.text)
        for token in completion.tokens[self._heard :]:
            self.add(token)
        if self._format is None:
            self.text += self._speech.rest()
            stopped, calls = self._speech.stopped, list[ToolCall]()
        else:
            said, calls = self._format.calls(self._all + self._whole.rest(), f"call_{secrets.token_hex(12)}")
            self.text, stopped = said, self._whole.stopped
        reason: FinishReason = "tool_calls" if calls else "stop" if stopped else completion.stop_reason
        return Ending(self.text[before:], calls, reason, stopped)
