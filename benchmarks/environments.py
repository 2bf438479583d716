"""Environments of peers whose requirements cannot be met beside ours: made on first use, and kept."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import CACHE


def environment(name: str, *installs: Sequence[str]) -> Path:
    """The interpreter of a virtual environment into which each of ``installs`` was installed, one after another.

    Raises:
        SystemExit: pip failed; its last words are passed on.
    """
    told = hashlib.sha256(json.dumps([sys.version, *map(list, installs)]).encode()).hexdigest()[:12]
    place = CACHE / "environments" / f"{name}-{told}"
    python = place / "bin" / "python"
    whole = place / "whole"
    if whole.exists():
        return python
    print(f"making the environment of {name} in {place}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    if os.environ.get("TORCH_INDEX_URL"):  # as ./run has it: where there is no GPU, spare the build for one
        pip += ["--extra-index-url", os.environ["TORCH_INDEX_URL"]]
    for packages in installs:
        result = subprocess.run([*pip, *packages], capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{' '.join(packages)} could not be installed:\n{result.stderr[-2000:]}")
    whole.touch()
    return python
