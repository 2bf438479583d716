"""A real OpenEnv server for a test, where the packages that it needs have been set up beside those of the project."""

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

WORLD = Path(__file__).with_name("openenv_world.py")
PACKAGES = Path(sys.prefix) / "openenv"
"""Where ``./run setup`` puts what the server needs and nothing else here does."""


@contextmanager
def openenv_server(sessions: int = 64) -> Iterator[str]:
    """The address of its WebSocket, until the end of the block."""
    if not (PACKAGES / "openenv").is_dir():
        pytest.skip("no OpenEnv server to talk to: ./run setup puts its packages into the environment")
    process = subprocess.Popen(
        [sys.executable, str(WORLD), str(sessions)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
    )
    try:
        port = process.stdout.readline().strip()
        assert port, "the OpenEnv server did not start"
        yield f"ws://127.0.0.1:{port}/ws"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@cache
def kept_openenv_server() -> str:
    """The address of one that many tests may share: it ends with the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(openenv_server())
