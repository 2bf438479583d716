"""Control groups: the kernel counts the memory and the processes of a job, and ends it at the limit."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from fettle.sandbox.inside.limits import SPARE_PROCESSES, Settings

_NAME = "fettle-sandbox-"
_CONTROLLERS = ("memory", "pids")


@dataclass
class Group:
    """Satisfies ``Count``. The files of the groups that all jobs of one worker run in, one after another."""

    folders: list[Path] = field(default_factory=list)
    entrances: list[int] = field(default_factory=list)
    """Whoever writes 0 to these descriptors is in."""
    kills: int = -1
    tasks: int = -1
    processes: int = 0
    _before: int = 0

    def begin(self) -> None:
        """A new job starts."""
        self._before = _kills(self.kills) if self.counts_memory else 0

    def exceeded(self) -> str | None:
        """As the kernel counts."""
        if self.counts_memory and _kills(self.kills) > self._before:
            return "memory"
        if self.tasks >= 0 and int(os.pread(self.tasks, 32, 0)) > self.processes:
            return "processes"
        return None

    def enter(self) -> None:
        """Put this process in."""
        for entrance in self.entrances:
            os.write(entrance, b"0")

    @property
    def counts_memory(self) -> bool:
        """Whether there is a limit of memory."""
        return self.kills >= 0

    def remove(self) -> None:
        """Take the groups away; they are empty once their jobs ended."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def made(settings: Settings) -> Group:
    """Groups beneath our own, of whatever controllers may be used; without any where none may."""
    group = Group(processes=settings.processes + 1)
    for controller in _CONTROLLERS:
        for place in _places(controller):
            _sweep(place)
            try:
                _limit(group, controller, place / f"{_NAME}{os.getpid()}", settings)
            except OSError:  # not ours to use: what this controller would count, a watchdog does
                continue
            break
    return group


def _places(controller: str) -> list[Path]:
    """Our own group in the hierarchy of that controller, first where it has one to itself."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    mounted = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line]
    places = []
    for fields in mounted:
        root, folder, kind, options = fields[3], fields[4], fields[fields.index("-") + 1], fields[-1].split(",")
        name = "" if kind == "cgroup2" else controller
        if name in own and (kind == "cgroup2" or controller in options):
            beneath = own[name].removeprefix(root.rstrip("/")).lstrip("/")
            places.append((kind == "cgroup2", Path(folder) / beneath))
    return [place for _, place in sorted(places)]


def _limit(group: Group, controller: str, folder: Path, settings: Settings) -> None:
    if folder not in group.folders:
        _if_there(folder.parent / "cgroup.subtree_control", f"+{controller}")
        folder.mkdir(exist_ok=True)
        group.folders.append(folder)
    # A full disk is memory as well, and is limited by itself.
    most = str(settings.memory + settings.disk)
    if controller == "pids":
        (folder / "pids.max").write_text(str(settings.processes + 1 + SPARE_PROCESSES))
        group.tasks = os.open(folder / "pids.current", os.O_RDONLY)
    elif (folder / "memory.max").exists():
        (folder / "memory.max").write_text(most)
        _if_there(folder / "memory.swap.max", "0")
        _if_there(folder / "memory.oom.group", "1")
        group.kills = os.open(folder / "memory.events", os.O_RDONLY)
    else:
        (folder / "memory.limit_in_bytes").write_text(most)
        _if_there(folder / "memory.memsw.limit_in_bytes", most)
        group.kills = os.open(folder / "memory.oom_control", os.O_RDONLY)
    entrance = os.open(folder / "cgroup.procs", os.O_WRONLY)
    group.entrances.append(entrance)


def _if_there(path: Path, value: str) -> None:
    if path.exists():
        with contextlib.suppress(OSError):
            path.write_text(value)


def _kills(descriptor: int) -> int:
    words = os.pread(descriptor, 4096, 0).split()
    return int(words[words.index(b"oom_kill") + 1]) if b"oom_kill" in words else 0


def _sweep(place: Path) -> None:
    """Remove what workers left that were killed before they could."""
    for folder in place.glob(f"{_NAME}*"):
        if not Path(f"/proc/{folder.name.removeprefix(_NAME)}").exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
