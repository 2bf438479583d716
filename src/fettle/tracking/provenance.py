"""What a run was made with: versions, machine, source, data, command."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fettle

PACKAGES = ("fettle", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "reasoning-gym")
GIT_SECONDS = 10


def launch(command: Sequence[str], *, threads: int | None, data: Iterable[Path]) -> dict[str, Any]:
    """One start of a run, as JSON. What cannot be known is null, and stops nothing."""
    return {
        "started": now(),
        "command": list(command),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "usable_processors": len(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        "threads": threads,
        "source": {
            "fettle": checkout(Path(fettle.__file__).parents[2]),
            "working_folder": checkout(Path.cwd()),
        },
        "data": {str(path): _sha256(path) for path in data},
    }


def now() -> str:
    """The moment, with its offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def checkout(folder: Path) -> dict[str, Any] | None:
    """The git commit that ``folder`` is a checkout of, and whether tracked files differ from it; None outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit.strip(), "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
