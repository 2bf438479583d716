"""Servers as processes: started on a free port, waited for, watched, and ended by their id."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE = 180.0
"""Seconds that a server may take to be ready."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


class Server:
    """One server, which can be killed and started again with the same command."""

    def __init__(
        self,
        command: Sequence[str],
        ready: str,
        *,
        log: Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``ready`` is the address that answers 200 once it is."""
        self._command = list(command)
        self._cwd = cwd
        self._ready = ready
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        """Start it, and wait for nothing."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._cwd, env=self._environment, start_new_session=True
            )

    def wait(self) -> float:
        """Seconds until it is ready.

        Raises:
            SystemExit: it ended, or took too long; its last words are passed on.
        """
        assert self._process is not None
        started = time.perf_counter()
        while time.perf_counter() - started < PATIENCE:
            if self._process.poll() is not None:
                break
            if answers(self._ready):
                return time.perf_counter() - started
            time.sleep(0.02)
        words = self._log.read_text(errors="replace")[-3000:]
        self.kill()
        raise SystemExit(f"{' '.join(self._command)} is not ready:\n{words}")

    def start(self) -> float:
        """Start it and wait until it is ready; returns the seconds that took."""
        self.spawn()
        return self.wait()

    def kill(self) -> None:
        """End it at once, with whatever it started: nothing in it is told."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait for that; after a while it is killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        self._signal(signal.SIGKILL)

    def resident(self) -> int:
        """Bytes of memory it holds now."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most it held since ``forget_peak``, or ever."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """What is held now is the peak from here on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait()


def answers(url: str) -> bool:
    """Whether an address says 200."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
