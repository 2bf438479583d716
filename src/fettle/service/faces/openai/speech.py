"""Tokens to text as they are drawn: no character is ever split, and what must not be seen never is."""

from collections.abc import Callable, Collection, Sequence

LONGEST_CHARACTER = 4
"""Tokens: a character has no more bytes than that, and a token with text at least one."""
UNFINISHED = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[Sequence[int]], str]
"""The text of tokens, as one text."""


class Speech:
    """The text of one completion, piece by piece; the pieces together are the text without any stop string.

    ``silent`` tokens (special ones) have no text. ``before`` are the tokens that the completion goes on from: some
    decoders strip a space from the first token of a text.
    """

    stopped: bool = False
    """Whether a stop string was met: everything from there on is left out."""

    def __init__(
        self,
        decode: Decode,
        *,
        silent: Collection[int] = (),
        stop: Sequence[str] = (),
        before: Sequence[int] = (),
    ) -> None:
        self._decode = decode
        self._silent = silent
        self._stop = tuple(stop)
        self._tokens = [token for token in before if token not in silent][-LONGEST_CHARACTER:]
        self._start, self._read = 0, len(self._tokens)  # of the last token with text, and of the first not yet read
        self._held = ""

    def add(self, token: int) -> str:
        """The text that has become certain with one more token."""
        if self.stopped or token in self._silent:
            return ""
        self._tokens.append(token)
        return self._shown(self._certain(at_the_end=False))

    def rest(self) -> str:
        """What was held back: nothing more will come."""
        if self.stopped:
            return ""
        text = self._shown(self._certain(at_the_end=True))
        held, self._held = self._held, ""
        return text + held

    def _certain(self, *, at_the_end: bool) -> str:
        before = self._decode(self._tokens[self._start : self._read])
        text = self._decode(self._tokens[self._start :])
        waiting = len(self._tokens) - self._read
        if text == before or (text.endswith(UNFINISHED) and waiting < LONGEST_CHARACTER and not at_the_end):
            return ""
        del self._tokens[: self._read]
        self._start, self._read = 0, len(self._tokens)
        return text[len(before) :]

    def _shown(self, new: str) -> str:
        text = self._held + new
        found = min((place for stop in self._stop if (place := text.find(stop)) >= 0), default=None)
        if found is not None:
            self.stopped, self._held = True, ""
            return text[:found]
        certain = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[certain:]
        return text[:certain]


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of ``text`` may be the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
