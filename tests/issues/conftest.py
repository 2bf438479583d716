"""A small repository with a history, made anew by git."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

AUTHOR = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com"}
COMMITTER = {"GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.com"}


class History:
    """Writes commits, one a minute."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._minute = 0
        path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, **environment: str) -> str:
        given = {**os.environ, **AUTHOR, **COMMITTER, "GIT_CONFIG_GLOBAL": os.devnull, **environment}
        done = subprocess.run(["git", *words], cwd=self.path, env=given, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message: str, files: dict[str, str | bytes | None], **author: str) -> str:
        """The hash of a commit that leaves these files so; None takes one away."""
        for name, content in files.items():
            place = self.path / name
            if content is None:
                place.unlink()
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        self._minute += 1
        at = f"2026-01-01T10:{self._minute:02d}:00+00:00"
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, GIT_AUTHOR_DATE=at, GIT_COMMITTER_DATE=at, **author)
        return self.git("rev-parse", "HEAD")


WRONG = "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return a * 2\n"
RIGHT = WRONG.replace("a - b", "a + b")
TESTS = "from calc import add, double\n\n\ndef test_double():\n    assert double(2) == 4\n"
MORE_TESTS = TESTS + "\n\ndef test_add():\n    assert add(2, 3) == 5\n"


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A calculator, whose sum was wrong and then mended."""
    found = History(tmp_path / "calculator")
    found.commit("A calculator", {"calc.py": WRONG, "tests/test_calc.py": TESTS, "README.md": "Calculates.\n"})
    found.commit("Say more of it", {"README.md": "Calculates well.\n"})
    found.commit("Sums are sums (closes #7)", {"calc.py": RIGHT, "tests/test_calc.py": MORE_TESTS})
    return found


def issue(number: int | str, title: str, **given: Any) -> dict[str, Any]:
    """An issue as GitHub's REST interface tells it."""
    return {
        "number": number,
        "title": title,
        "body": "It is wrong.",
        "state": "closed",
        "created_at": "2026-01-01T09:00:00Z",
        "updated_at": "2026-01-01T09:30:00Z",
        "closed_at": "2026-01-01T11:00:00Z",
        "labels": [{"name": "bug"}],
        "user": {"login": "eve"},
        **given,
    }


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Writes an export."""

    def written(entries: list[dict[str, Any]], name: str = "export.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(entries))
        return path

    return written
