"""The file system that jobs see: the interpreter, its library, and nothing else of this machine."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from fettle.sandbox.inside import kernel

DEVICES = ("null", "zero", "full", "random", "urandom")
UNCOUNTED_DEVICES = ("null", "full", "random", "urandom")
"""Where nobody counts memory: what is mapped of ``zero`` is memory that nobody sees."""
INSIDE = 1000
"""Number of the user and the group that a job has."""
INTERPRETER = Path(sys.executable).resolve()
"""The program itself, not a link to it."""
_FILES = {
    "passwd": f"sandbox:x:{INSIDE}:{INSIDE}::/tmp/work:/bin/false\n",
    "group": f"sandbox:x:{INSIDE}:\n",
    "hosts": "127.0.0.1 localhost\n",
}
WORK, SHARED = Path("/tmp/work"), Path("/tmp/shm")
"""A job's own folders: where it begins, and what its processes share."""
_FLAGS = kernel.NOSUID | kernel.NODEV
_OLD, _NEW = Path("/old"), Path("/new")


def readable(packages: bool) -> list[Path]:
    """Folders and files that jobs may read: the standard library, what it is linked to, and installed packages."""
    installed = [path for path in map(Path, sys.path) if path.is_dir()] if packages else []
    return _outermost([*_library(), *installed, INTERPRETER, *_linked()])


def below_tmp(packages: bool) -> list[str]:
    """Those of them that jobs see where each has a folder of its own, and that it is to see in there."""
    return [str(place) for place in map(_place, readable(packages)) if place.is_relative_to("/tmp")]


def hidden(packages: bool) -> list[Path]:
    """Folders within those that jobs see empty: packages, which only scorers may use."""
    beside = {path / name for path in _library() for name in ("site-packages", "dist-packages")}
    return [path for path in beside if path.is_dir() and not (packages and str(path) in sys.path)]


def closed(packages: bool) -> Path | None:
    """The first of those folders, or of the folders they lie in, that is closed to users who own nothing."""
    lead = (folder for path in readable(packages) for folder in (*reversed(path.parents), path))
    return next((folder for folder in lead if not folder.stat().st_mode & 0o001), None)


def _library() -> list[Path]:
    return [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]


def _mapped() -> list[Path]:
    """Files that are mapped into this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [Path(path) for path in dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if "/" in line)]


def _linked() -> list[Path]:
    """Folders of the shared libraries that the interpreter uses."""
    return [path.parent for path in _mapped() if ".so" in path.name and path.is_file()]


def _loaders() -> list[tuple[Path, Path]]:
    """Where programs look for the loader of shared libraries, and where it is."""
    loaders = [path for path in _mapped() if path.name.startswith("ld-") and ".so" in path.name]
    folders = [folder for folder in (Path("/lib"), Path("/lib64")) if folder.is_dir()]
    return [(folder.resolve() / path.name, path) for path in loaders for folder in folders]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Each path once, without those that lie in another."""
    chosen: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(outer) for outer in chosen):
            chosen.append(path)
    return chosen


def enter(shown: Iterable[Path], emptied: Iterable[Path], devices: Sequence[str]) -> None:
    """Make the root of this mount namespace one that holds what is ``shown``, read-only, without what is ``emptied``.

    What it says of processes, it says of those of this process's namespace.
    """
    loaders = _loaders()
    sources = {path: path.resolve() for path in shown}
    links = {path: path.readlink() for path in (Path("/lib"), Path("/lib64")) if path.is_symlink()}
    kernel.mount(None, "/", None, kernel.REC | kernel.PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", _FLAGS, "size=16m,mode=755")
    for folder in (_OLD, _NEW):
        _within(Path("/tmp"), folder).mkdir()
    kernel.pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    kernel.mount("tmpfs", str(_NEW), "tmpfs", _FLAGS, "size=16m,mode=755")
    for path, target in links.items():
        _within(_NEW, path).symlink_to(target)
    for path, source in sources.items():
        bind(_within(_OLD, source), _within(_NEW, _place(path)))
    for path in emptied:
        kernel.mount("tmpfs", str(_within(_NEW, _place(path))), "tmpfs", _FLAGS, "size=4k,nr_inodes=1,mode=755")
    for path, target in loaders:
        _link(_within(_NEW, path), target)
    _furnish(devices)
    kernel.make_read_only(str(_NEW))
    for device in devices:
        kernel.mount(f"/old/dev/{device}", f"/new/dev/{device}", None, kernel.BIND)
    kernel.mount("proc", "/new/proc", "proc", _FLAGS | kernel.NOEXEC)
    os.chdir(_NEW)
    kernel.pivot_root(".", ".")
    kernel.detach(".")
    os.chdir("/")


def _place(path: Path) -> Path:
    """Where jobs see a path: what memory they share with each other is a folder of their own."""
    shared = Path("/dev/shm")
    return SHARED / path.relative_to(shared) if path.is_relative_to(shared) else path


def _within(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def bind(source: Path, target: Path) -> None:
    """Show one file or folder in another place."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    kernel.mount(str(source), str(target), None, kernel.BIND | kernel.REC)


def _link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists() and not place.is_symlink():
        place.symlink_to(target)


def _furnish(devices: Sequence[str]) -> None:
    """The few files and folders that a program expects anywhere."""
    for folder in ("etc", "dev", "proc", "tmp"):
        (_NEW / folder).mkdir(exist_ok=True)
    for name, text in _FILES.items():
        (_NEW / "etc" / name).write_text(text)
    cache = _OLD / "etc" / "ld.so.cache"
    if cache.is_file():
        (_NEW / "etc" / "ld.so.cache").write_bytes(cache.read_bytes())
    for device in devices:
        (_NEW / "dev" / device).touch()
    (_NEW / "dev" / "shm").symlink_to(SHARED)
