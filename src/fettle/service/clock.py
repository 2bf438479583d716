"""What time it is, in UTC."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def now() -> datetime:
    """By this machine's clock."""
    return datetime.now(UTC)
