"""Symbols: whether two expressions are equivalent, by math-verify. Only a sandbox may import this module."""

from collections.abc import Sequence
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify  # type: ignore[import-untyped]

WAYS = (LatexExtractionConfig(),)
"""As LaTeX and in no other way: what cannot be read as that would be searched for any number."""

TRIED = (
    ("(x+1)^2", r"x^2 + 2x + \frac{4}{4}"),
    (r"\sqrt{2} - 1", r"\frac{1}{1+\sqrt{2}}"),
    (r"\log 2 + \sin x + e^x", r"\sin{x} + e^x + \log{2}"),
    (r"\{1, x\}", r"\{x, 1\}"),
    (r"[0, \pi)", r"[0, \pi)"),
    (r"x \le y + 1", r"y \ge x - 1"),
    ("y = 2x + 3", "2x = y - 3"),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \end{pmatrix}"),
    (r"\int_0^1 x dx + \sum_{k=1}^{3} k", r"\binom{4}{2}"),
    ("3 + 2i", "2i + 4"),
)
"""Pairs that are compared when this is imported: the packages load parts of themselves as they go, and once there are
walls nothing can be loaded any more."""


def equivalent(expected: str, answer: str) -> bool:
    """Whether ``answer`` is the ``expected`` expression, written otherwise. It has no limit of time of its own."""
    wanted, said = _read(expected), _read(answer)
    return bool(wanted and said and verify(wanted, said, timeout_seconds=None))


def readable(answers: Sequence[str]) -> list[bool]:
    """For each answer, whether it is equivalent to itself; what cannot be read is not."""
    return [equivalent(answer, answer) for answer in answers]


def _read(text: str) -> list[Any]:
    found: list[Any] = parse(f"${text}$", WAYS, fallback_mode="no_fallback", parsing_timeout=None)
    return found


for _expected, _answer in TRIED:
    equivalent(_expected, _answer)
