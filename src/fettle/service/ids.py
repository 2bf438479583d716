"""Names and ids: what may stand in an address and in a folder's name, and new ones."""

import hashlib
import re
import secrets

from fettle.errors import DataError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,199}")


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


def draw_key(tenant: str, key: str) -> str:
    """The id of a draw that a tenant calls ``key``; nobody else's is the same."""
    return "draw-" + hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()[:32]


def pin_run(pin: str) -> str:
    """The run whose operation a pin is: ``<run>.<incarnation>.<seq>``."""
    return pin.rsplit(".", 2)[0]
