"""What comes out of a sandbox."""

from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

Ending = Literal["exited", "killed", "timeout", "memory", "output", "processes"]
"""How a program ended: by itself, by a signal, or by the limit that it went beyond."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What confines code here."""

    name: str
    walls: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({'; '.join(self.walls) or 'no walls'})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended, and what it said until then."""

    ending: Ending
    code: int | None
    """Exit code of one that ended by itself; of one that a signal ended, the signal's number, negative."""
    stdout: bytes
    stderr: bytes
    seconds: float
    processor_seconds: float
    isolation: str


@dataclass(frozen=True, slots=True)
class Value:
    """A call returned this."""

    value: JsonValue


@dataclass(frozen=True, slots=True)
class Raised:
    """A call raised, or returned what is no JSON."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Timeout:
    """A call did not return in time."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended, or was ended, instead of answering."""


Reply = Value | Raised | Timeout | Died
"""What came of one call."""
