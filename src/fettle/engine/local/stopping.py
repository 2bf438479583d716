"""Stopping: when a token completes one of a row's stop strings."""

from collections import deque
from collections.abc import Callable, Sequence

MARGIN = 4
"""Tokens decoded beyond one for each byte of the string: some add no text, and decoders may strip a leading space."""


class Pieces:
    """What single tokens contribute to a text, decoded once each."""

    def __init__(self, decode_text: Callable[[Sequence[int]], str]) -> None:
        self.decode_text = decode_text
        self._texts: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if token not in self._texts:
            # Twice, because some decoders strip a space from the first token of a text.
            self._texts[token] = self.decode_text((token, token))
        return self._texts[token]


class StopStrings:
    """Watches one row. Each token is at least one byte of text, which bounds what must be decoded to find a string."""

    def __init__(self, strings: Sequence[str], pieces: Pieces) -> None:
        self._strings = tuple(strings)
        self._last = {string[-1] for string in strings}
        self._pieces = pieces
        self._tail: deque[int] = deque(maxlen=max(len(string.encode()) for string in strings) + MARGIN)

    def completed_by(self, token: int) -> bool:
        """Whether a stop string ends within this token, the row's next."""
        self._tail.append(token)
        piece = self._pieces[token]
        # Most tokens lack every string's last character; a replacement character is part of one that is unknown.
        if "\N{REPLACEMENT CHARACTER}" not in piece and self._last.isdisjoint(piece):
            return False
        text = self._pieces.decode_text(tuple(self._tail))
        return any(string in text for string in self._strings)
