"""``fettle environments serve routing``, as somebody would type it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = [sys.executable, "-c", "from fettle.cli import main; main()", "environments", "serve"]


class Server:
    """A server in a process of its own; it prints its address once it listens."""

    def __init__(self, *arguments: str, port: int = 0) -> None:
        self._arguments = arguments
        self._begin(port)

    def _begin(self, port: int) -> None:
        command = [*COMMAND, *self._arguments, "--port", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.said = self._process.stdout.readline().strip()
        self.port = int(self.said.rpartition(":")[2])

    @property
    def settings(self) -> tuple[str, ...]:
        """With which a run plays there."""
        return (
            "rllm.rollout_service.enabled=true",
            f"rllm.rollout_service.address=http://127.0.0.1:{self.port}",
            "rllm.rollout_service.patience=30",
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)

    def again(self) -> None:
        """Another one in its place."""
        self.kill()
        self._begin(self.port)


@contextmanager
def server(*arguments: str) -> Iterator[Server]:
    made = Server(*(arguments or ("routing",)))
    try:
        yield made
    finally:
        made.kill()
