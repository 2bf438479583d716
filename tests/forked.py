"""``fettle`` in processes of its own, each forked from one that has imported everything: a start takes no seconds.

What a start from nothing is like is shown where processes are started by command.
"""

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from fettle.cli import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fettle.cli.build", "fettle.cli.serving", "fettle.service.app", "fettle.tracking.plots"])


class Forked:
    """``fettle`` and its arguments in a folder; what it prints can be read as a ``subprocess.Popen``'s can.

    What it says on standard error goes to the file for ``complaints``, if there is one.
    """

    def __init__(self, *arguments: str, cwd: Path | None = None, complaints: Path | None = None) -> None:
        (out, its_out), (err, its_err) = FORKS.Pipe(duplex=False), FORKS.Pipe(duplex=False)
        told = (arguments, cwd or Path.cwd(), dict(os.environ), its_out, complaints or its_err)
        self._process = FORKS.Process(target=_typed, args=told, daemon=True)
        self._process.start()
        for end in (its_out, its_err):
            end.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(end.fileno()), encoding="utf-8") for end in (out, err))
        for end in (out, err):
            end.close()

    def __enter__(self) -> "Forked":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait(60)
        for stream in (self.stdout, self.stderr):
            stream.close()

    @property
    def pid(self) -> int:
        """By which the system knows it."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, negative for the signal that ended it; None where it has not."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """As the system does."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Without a word."""
        self._process.kill()

    def wait(self, seconds: float) -> int:
        """How it ended."""
        self._process.join(seconds)
        assert self.returncode is not None, f"it has not ended in {seconds:g} seconds"
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """All that is left to be read, once it has ended."""
        out, err = self.stdout.read(), self.stderr.read()
        self.wait(timeout)
        return out, err


def _typed(
    arguments: tuple[str, ...], folder: Path, variables: dict[str, str], out: Connection, complaints: Connection | Path
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    os.dup2(out.fileno(), 1)
    with complaints.open("ab") if isinstance(complaints, Path) else complaints as err:
        os.dup2(err.fileno(), 2)
    sys.argv = ["fettle", *arguments]
    main()
