"""Names and ids: what may stand in an address and in a folder's name, and new ones."""

import hashlib
import re
import secrets

from fettle.errors import DataError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,199}")


PIN = re.compile(r".+\.\d+\.\d+")
"""What ids of operations look like, by which the weights that they pinned are drawn from."""
OPENAI = "openai-"
"""What ids of samplers begin with that nobody opened: the OpenAI face did for whoever asked."""


def new_id(kind: str) -> str:
    """An id that nobody can guess."""
    return f"{kind}-{secrets.token_hex(12)}"


def checked(kind: str, name: str) -> str:
    """The name, if it can be a folder's.

    Raises:
        DataError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"{kind} {name[:80]!r} cannot be used: letters, digits and _ . : + - (not first), 200 at most")
    return name


def chosen(id: str) -> str:
    """The id that a client made up for a sampler.

    Raises:
        DataError: it could be one that the service gives.
    """
    if id.startswith(OPENAI) or PIN.fullmatch(id):
        raise DataError(f"the id {id[:80]!r} is one that the service gives: choose another")
    return id


def draw_key(tenant: str, key: str) -> str:
    """The id of a draw that a tenant calls ``key``; nobody else's is the same."""
    return "draw-" + hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()[:32]


def pin_run(pin: str) -> str:
    """The run whose operation a pin is: ``<run>.<incarnation>.<seq>``."""
    return pin.rsplit(".", 2)[0]
