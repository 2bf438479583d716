"""Figures: medians and quartiles of what was timed, and how a cost grows."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of the values, their quartiles (linear between values), and how many there are."""
    if len(values) == 1:
        return {"median": values[0], "q1": values[0], "q3": values[0], "n": 1}
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3, "n": len(values)}


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """One median over another."""
    return statistics.median(numerator) / statistics.median(denominator)


def exponent(sizes: Sequence[float], costs: Sequence[float], *, upper: int = 3) -> float:
    """The slope of ``log cost`` over ``log size`` by least squares, on the ``upper`` largest sizes.

    What a cost begins with (start-up, fixed parts) flattens the lower part of the line and says nothing of its growth.
    """
    points = sorted(zip(sizes, costs, strict=True))[-upper:]
    x = [math.log(size) for size, _ in points]
    y = [math.log(cost) for _, cost in points]
    return statistics.linear_regression(x, y).slope


def rounded(value: Any, digits: int = 5) -> Any:
    """Every float in a record to so many significant digits, so that a line can be read."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return value
