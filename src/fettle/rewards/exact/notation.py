"""Notation: LaTeX, Unicode and plain writing of one answer, brought to one small alphabet.

After it ``π`` is pi, ``√`` a root, ``÷`` a fraction of the two groups after it, ``∞`` infinity, ``∪`` a union, ``∈``
membership, ``±`` plus or minus, ``≤`` and ``≥`` the comparisons, ``«`` and ``»`` the braces of a set, and ``{`` and
``}`` group. Every other letter is a letter of the answer.
"""

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

LONGEST = 300
DEEPEST = 60
MOST_DIGITS = 200
"""Limits of an answer: characters, brackets within brackets, digits in a row. What exceeds them is no answer."""

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("left", "right", "displaystyle", "limits", "big", "Big", "bigl", "bigr", "Bigl", "Bigr"), ""),
        **dict.fromkeys(("quad", "qquad", "space"), " "),
        **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac"), "÷"),
        **dict.fromkeys(("cdot", "times", "ast"), "*"),
        **dict.fromkeys(("div",), "/"),
        **dict.fromkeys(("le", "leq", "leqslant"), "≤"),
        **dict.fromkeys(("ge", "geq", "geqslant"), "≥"),
        **dict.fromkeys(("lbrace",), "«"),
        **dict.fromkeys(("rbrace",), "»"),
        **dict.fromkeys(("lt",), "<"),
        **dict.fromkeys(("gt",), ">"),
        **dict.fromkeys(("pm",), "±"),
        **dict.fromkeys(("circ", "degree"), "°"),
        **dict.fromkeys(("land", "wedge"), " and "),
        **dict.fromkeys(("lor", "vee"), " or "),
        "pi": "π",
        "sqrt": "√",
        "infty": "∞",
        "cup": "∪",
        "in": "∈",
    }
)
"""What a LaTeX command becomes; any other stays, and is not read."""

SIGNS = str.maketrans(
    {"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "⁄": "/", "∕": "/", "€": " euros ", "£": " pounds "}
)
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")

TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
COMMAND = re.compile(r"\\([a-zA-Z]+)")
RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
VULGAR = re.compile(r"[¼½¾⅐-⅞]")
WORDS = (
    (re.compile(r"(?<![a-zA-Z])pi(?![a-zA-Z])"), "π"),
    (re.compile(r"(?<![a-zA-Z])sqrt(?![a-zA-Z])"), "√"),
    (re.compile(r"(?<![a-zA-Z])(?:infinity|inf|oo)(?![a-zA-Z])"), "∞"),
    (re.compile(r"<=|=<"), "≤"),
    (re.compile(r">="), "≥"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^\s*(?:\{\s*°\s*\}|°)"), "°"),
    (re.compile(r"°"), " degrees "),
    (re.compile(r"(?<=[0-9])\{,\}(?=[0-9]{3})"), ""),
    (re.compile(r"(?<=[0-9]) (?=[0-9]{3}(?![0-9/]))(?<![.,/][0-9] )"), ""),
)


def plain(text: str) -> str | None:
    r"""``text`` in the small alphabet, or None where it exceeds a limit.

    >>> plain(r"$\left(\dfrac{1}{2},\ 3\sqrt{2}\right)$")
    '(÷{1}{2}, 3√{2})'
    """
    if len(text) > LONGEST or re.search(rf"[0-9]{{{MOST_DIGITS + 1}}}", text) or depth(text) > DEEPEST:
        return None
    return small(text)


def small(text: str) -> str:
    """``text`` in the small alphabet, however long it is."""
    text = _delimited(unicodedata.normalize("NFC", text).strip().strip("*").rstrip(".;,").translate(SIGNS))
    text = RAISED.sub(lambda found: f"^{{{found.group().translate(SUPERSCRIPTS)}}}", text)
    text = VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found.group()).replace("⁄", "/"), text)
    text = re.sub(r"\\[!,;:]|~", lambda found: "" if found.group() in (r"\!", r"\,") else " ", text)
    text = re.sub(r"(?<!\\)\\ ", " ", text).replace(r"\{", "«").replace(r"\}", "»").replace(r"\%", "%")
    text = TEXT.sub(r" \1 ", text)
    text = COMMAND.sub(lambda found: COMMANDS.get(found.group(1), found.group()), text)
    for pattern, sign in WORDS:
        text = pattern.sub(sign, text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".;,")


def compact(text: str) -> str:
    """A plain text without what only sets it out: two answers that are one text are one answer."""
    text = re.sub(r"\{([^{}])\}", r"\1", text)
    return re.sub(r"(?<![a-zA-Z0-9.,]) | (?![a-zA-Z0-9.,])", "", text).replace("«", "{").replace("»", "}")


def depth(text: str) -> int:
    """The most brackets of any kind that are open at one place."""
    most = now = 0
    for sign in text:
        now += (sign in "([{") - (sign in ")]}")
        most = max(most, now)
    return most


def _delimited(text: str) -> str:
    """Without the signs that set mathematics apart from prose; a dollar that pays stays a ``$``."""
    paid = text.replace(r"\$", "¤")
    paid = paid.replace("$", "") if paid.count("$") % 2 == 0 else paid.replace("$", "¤")
    return re.sub(r"\\[()\[\]]", "", paid).replace("¤", "$")
