"""Values as people read them. What models and clients say is shown as it is, and can neither format nor hide anything.

Escaping for HTML is the templates' business, and is always on there.
"""

import math
from datetime import UTC, datetime

from fettle.tracking.pages import VISIBLE

LONGEST = 20_000
"""Characters of one text."""
AGES = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def visible(text: object) -> str:
    """The text with its control characters, and those that turn its direction around, made visible."""
    return str(text).encode(errors="backslashreplace").decode().translate(VISIBLE)


def clipped(text: str) -> tuple[str, int]:
    """The beginning of a text, and how many characters were left out."""
    return visible(text[:LONGEST]), max(0, len(text) - LONGEST)


def finite(value: object) -> float | None:
    """A number that can be drawn, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        known = float(value)
    except OverflowError:
        return None
    return known if math.isfinite(known) else None


def number(value: object) -> str:
    """Four digits that matter, or a dash for what is no number."""
    if (known := finite(value)) is None:
        return "–"
    return f"{known:,.0f}" if known == int(known) or abs(known) >= 1e4 else f"{known:.4g}"


def age(since: datetime, now: datetime) -> str:
    """How long ago, in the two largest units."""
    seconds = max(0, int((now - _utc(since)).total_seconds()))
    parts: list[str] = []
    for unit, size in AGES:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2] if parts else ["0 s"])


def moment(at: datetime) -> str:
    """A time for people and, being ISO 8601, for their tools."""
    return _utc(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(nbytes: int) -> str:
    """Bytes in the unit that suits them.

    >>> size(1536), size(0)
    ('1.5 KiB', '0 B')
    """
    power = min(int(math.log2(nbytes) // 10), len(SIZES) - 1) if nbytes > 0 else 0
    return f"{nbytes / 1024**power:.{min(power, 1)}f} {SIZES[power]}"


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
