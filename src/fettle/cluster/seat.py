"""What the pool asks of a sampler, whatever it is."""

from collections.abc import Sequence
from typing import Any, Protocol

from fettle.cluster.parcel import Parcel
from fettle.engine.base import SampleRequest
from fettle.types import Completion, Floats, Tokens


class GoneError(Exception):
    """A sampler died, fell silent, or has forgotten what it held: what it was asked, another can do."""


class SupersededError(Exception):
    """A sampler that holds one version at a time has moved on from the one that was asked for."""


class Seat(Protocol):
    """A sampler. Every call but ``alive`` may come from several threads."""

    name: str

    def take(self, parcel: Parcel) -> None:
        """Hold these weights, too, under the parcel's name; all of their bytes were seen to arrive.

        Raises:
            GoneError: it has died.
            FettleError: it cannot hold them.
        """
        ...

    def drop(self, parcel: Parcel) -> None:
        """They are not drawn from any more. What has died is not told."""
        ...

    def holds(self, name: str) -> bool:
        """Whether these weights can be drawn from."""
        ...

    def draw(self, parcels: Sequence[Parcel], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """``parcels[i]`` is what request ``i`` is drawn from.

        Raises:
            GoneError: it has died.
            SupersededError: it holds other weights now.
            FettleError: a request cannot be drawn.
        """
        ...

    def actor(self) -> Any | None:
        """Who can be heard while it draws; None where completions come whole."""
        ...

    def logprobs(self, parcel: Parcel, sequences: Sequence[Tokens]) -> list[Floats]:
        """For each sequence [T], at temperature 1; 0 for its first token.

        Raises:
            GoneError: it has died.
        """
        ...

    def alive(self) -> bool:
        """Whether it answers, whatever else it does."""
        ...

    def leave(self) -> None:
        """It is given up: what is under way there does not count. See to it that there is another, or the same anew."""
        ...

    def back(self) -> bool:
        """Whether it is there again, with no weights of ours; asked of one that was given up."""
        ...

    def close(self) -> None:
        """End it, or let go of what it holds for us."""
        ...
