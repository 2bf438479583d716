"""How well a change is explained: by names that are really in it, in as many words as it takes, and no more."""

import re
from collections import Counter

WORD = re.compile(r"[A-Za-z_]\w*")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_]\w*")
PROSE = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can did do does for from had has have if in is it its may no not of on one "
        "or so than that the then there these this those to too was were what when where which while who why will with "
        "would i we you",
    )
)
"""Words that say how others belong together: of these a sentence needs some, and a list of keywords has none."""
FEWEST, MOST = 8, 120
"""Words of an explanation; with more it is worth less and less, and nothing at twice as many."""
NAMED = 2
"""Different names of the change that an explanation has to have."""
LEAST_PROSE = 0.15
"""Share of words of the kind above; less is no sentence."""
MOST_OFTEN = 0.2
"""Share that one word may have, from which on an explanation repeats itself."""


def explained(text: str, *, statement: str, change: str) -> float:
    r"""What an explanation of a change is worth, from 0 to 1; one that names nothing of the change is worth nothing.

    The parts are multiplied: so many of ``NAMED`` names that the change's own lines have; of all that it puts between
    backquotes, the share that is in the change or in the problem's statement; its length; and that it is sentences.

    >>> change = "--- a/m.py\\\n+++ b/m.py\\\n-    return low\\\n+    return high\\\n"
    >>> said = "The function returned `low` where a value was too large, and that must be `high` as the issue says."
    >>> explained(said, statement="clamp is wrong", change=change)
    1.0
    >>> explained("All tests are passing now, and the fix is complete.", statement="clamp is wrong", change=change)
    0.0
    """
    prose = CODE.sub(" ", text)
    words = [word.lower() for word in WORD.findall(text)]
    if len(words) < FEWEST:
        return 0.0
    there = _names(change)
    quoted = _names("\n".join(f"+{code}" for code in CODE.findall(text)))
    named = len(quoted & there) / NAMED
    honest = len(quoted & (there | frozenset(NAME.findall(statement)))) / len(quoted) if quoted else 0.0
    return min(1.0, named) * honest * _length(len(words)) * _is_said(prose, words)


def _names(change: str) -> frozenset[str]:
    """The names in the lines that a change adds and removes, and in its files' paths."""
    lines = [line for line in change.splitlines() if line[:1] in ("+", "-")]
    return frozenset(name for line in lines for name in NAME.findall(line) if name.lower() not in PROSE)


def _length(count: int) -> float:
    return min(1.0, max(0.0, 2 - count / MOST))


def _is_said(prose: str, words: list[str]) -> bool:
    """Whether a text is made of sentences, and does not say the same word again and again."""
    plain = [word.lower() for word in WORD.findall(prose)]
    counts = Counter(word for word in words if word not in PROSE)
    joining = sum(word in PROSE for word in plain)
    often = max(counts.values(), default=0)
    return bool(plain) and joining >= LEAST_PROSE * len(plain) and often <= max(2, MOST_OFTEN * len(words))
