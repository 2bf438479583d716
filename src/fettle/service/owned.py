"""Whose is what: a foreign thing is answered exactly as one that is not there."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from fettle.errors import NotFoundError
from fettle.service.callers import Caller


class Owned(Protocol):
    """Something that has an owner."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...


Thing = TypeVar("Thing", bound=Owned)
Foreign = Callable[[Caller, str], object]
"""Told of whoever asks for what belongs to another, and of what."""


class Owners:
    """Looks things up for their owners alone."""

    def __init__(self, foreign: Foreign) -> None:
        self._foreign = foreign

    def find(self, kind: str, things: Mapping[str, Thing], id: str, caller: Caller) -> Thing:
        """The thing of that id.

        Raises:
            NotFoundError: there is none, or it is another tenant's.
        """
        thing = things.get(id)
        if thing is not None and thing.tenant == caller.tenant:
            return thing
        if thing is not None:
            self._foreign(caller, id)
        raise unknown(kind, id)


def unknown(kind: str, id: str) -> NotFoundError:
    """What is said of an id that is not there, and of a foreign one."""
    return NotFoundError(f"there is no {kind} {id!r} here: it was deleted, has expired, or never was")
