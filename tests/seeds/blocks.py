"""The code blocks of a page, and how to run one that awaits at its top."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEADED = re.compile(r"^## (.*?)\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str = "python") -> list[str]:
    """In the order in which they stand."""
    return [code for kind, code in FENCE.findall(text_of(page)) if kind == language]


def headed(page: str) -> dict[str, str]:
    """By their headings."""
    return dict(HEADED.findall(text_of(page)))


def text_of(page: str) -> str:
    return (Path(__file__).parent / page).read_text(encoding="utf-8")


async def executed(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """What the names are after the code has run among them."""
    done = eval(compile(code, "<page>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.isawaitable(done):
        await done
    return names
