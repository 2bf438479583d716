"""Seeds with names: every draw is keyed by what it is for, never by the order of draws."""

import hashlib


def key(*parts: object) -> int:
    """63 bits that depend on every part.

    >>> key(0, "rollout", 1) == key(1, "rollout", 0)
    False
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
