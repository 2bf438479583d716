"""What somebody gave for a number, as a plain one."""

from numbers import Real


def amount(given: object) -> float | None:
    """``given`` as a float, NaN and infinity included; None where it is no number. A switch is none.

    >>> amount(3), amount("3"), amount(True)
    (3.0, None, None)
    """
    if isinstance(given, bool) or not isinstance(given, Real):
        return None
    try:
        return float(given)
    except OverflowError:  # a whole number, or a fraction, that no float holds
        return None
