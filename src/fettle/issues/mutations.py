"""Mistakes: one word of a program in the place of another."""

import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

OTHERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "<": ("<=", ">"),
        "<=": ("<", ">="),
        ">": (">=", "<"),
        ">=": (">", "<="),
        "==": ("!=",),
        "!=": ("==",),
        "+": ("-",),
        "-": ("+",),
        "*": ("+",),
        "/": ("*", "//"),
        "//": ("%",),
        "%": ("//",),
        "and": ("or",),
        "or": ("and",),
        "min": ("max",),
        "max": ("min",),
    }
)
"""What may stand in the place of a word; a whole number may be one more or one less."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mistake in a program."""

    line: int
    """From 1."""
    was: str
    becomes: str
    source: str
    """The program with it."""


def mutations(source: str) -> Iterator[Mutation]:
    """Every mistake that can be made in the body of a function, in the order of its words; not in its docstring."""
    lines = source.splitlines(keepends=True)
    in_body = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        in_body = in_body or token.type == tokenize.INDENT
        if not in_body or token.type not in (tokenize.OP, tokenize.NAME, tokenize.NUMBER):
            continue
        row, start = token.start
        for other in _others(token):
            line = lines[row - 1]
            changed = f"{line[:start]}{other}{line[token.end[1] :]}"
            text = "".join((*lines[: row - 1], changed, *lines[row:]))
            yield Mutation(row, token.string, other, text)


def _others(token: tokenize.TokenInfo) -> tuple[str, ...]:
    if token.type == tokenize.NUMBER and token.string.isdigit():
        number = int(token.string)
        return (str(number + 1), str(number - 1)) if number else ("1",)
    return OTHERS.get(token.string, ())
