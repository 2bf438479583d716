"""Workers on a study beside this process: what they all are to whoever waits for them, and those that are processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fettle.cli.exits import INTERRUPTED
from fettle.tuning import StudyFolder

START = "from fettle.cli import main; main()"


class Crew(Protocol):
    """Workers that have begun on a phase of a study."""

    def at_work(self) -> bool:
        """Whether any of them is."""
        ...

    def stop(self) -> None:
        """Have each save its run, and end."""
        ...

    def interrupted(self) -> bool:
        """Whether one was stopped, once nobody is at work."""
        ...

    def undone(self) -> str:
        """Why the trials are not done though nobody is at work."""
        ...


class Team(Protocol):
    """Where workers come from."""

    def crew(self, phase: str) -> AbstractContextManager[Crew]:
        """Workers on that phase; what ends the block ends them."""
        ...


@dataclass(frozen=True, slots=True)
class Processes:
    """Satisfies ``Team``: processes of this machine, each a ``fettle tune`` of its own."""

    folder: StudyFolder
    count: int

    @contextmanager
    def crew(self, phase: str) -> Iterator[Crew]:
        """The same."""
        command = [sys.executable, "-c", START, "tune", "--resume", str(self.folder.path), "--only", phase]
        found = _Running(self.folder)
        try:
            for at in range(self.count):
                with log_of(self.folder, phase, at).open("ab") as log:
                    # Out of the terminal's group, which would send them Ctrl-C a second time, and end them at once.
                    started = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                found.running.append(started)
            yield found
        finally:
            for process in found.running:
                if process.poll() is None:
                    process.terminate()
                process.wait()


@dataclass(frozen=True, slots=True)
class _Running:
    """Satisfies ``Crew``."""

    folder: StudyFolder
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def at_work(self) -> bool:
        return any(process.poll() is None for process in self.running)

    def stop(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGINT)

    def interrupted(self) -> bool:
        return any(process.returncode == INTERRUPTED for process in self.running)

    def undone(self) -> str:
        killed = [f"signal {-process.returncode}" for process in self.running if process.returncode < 0]
        if killed:
            return f"a worker was killed ({', '.join(killed)}) before the trials were done; what was found is kept"
        logs = sorted(self.folder.workers.glob("*.log"), key=lambda path: path.stat().st_mtime)
        said = [line for path in logs for line in path.read_text(errors="replace").splitlines() if "fettle: " in line]
        return said[-1].partition("fettle: ")[2] if said else f"the workers failed: see {self.folder.workers}"


def log_of(folder: StudyFolder, phase: str, at: int) -> Path:
    """Where the worker of that number writes what it says."""
    return folder.workers / f"{phase}-{at + 1}.log"
