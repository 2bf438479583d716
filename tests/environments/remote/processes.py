"""Servers that can be killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]


class Process:
    """The driver, at a port of its own."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, "-m", "tests.environments.remote.driver", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.port = int(self._process.stdout.readline())
        self.address = f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> tuple[int, str]:
        """Its exit code and the last it printed."""
        said, _ = self._process.communicate(timeout=120)
        return self._process.returncode, said.strip()


@contextmanager
def process(port: int = 0) -> Iterator[Process]:
    made = Process(port)
    try:
        yield made
    finally:
        made.kill()
