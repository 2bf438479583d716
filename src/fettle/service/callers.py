"""Who calls."""

from dataclasses import dataclass

LOCAL_TENANT = "local"
"""Who everybody is on a service without keys."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds a key, or anybody where none is asked for."""

    tenant: str
    key: str
    """The key's id."""
    admin: bool
    address: str = ""
    """Where the caller is, for the audit log."""


ANYBODY = Caller(tenant=LOCAL_TENANT, key="", admin=True)
"""Who calls a service without keys."""
