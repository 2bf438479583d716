"""The files of a problem, as they are at one moment: no repository, and so nothing of what came later."""

import io
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from fettle.errors import DataError
from fettle.issues.git import Repository, git
from fettle.issues.patches import files_of

AUTHOR = ("-c", "user.name=fettle", "-c", "user.email=fettle@localhost", "-c", "commit.gpgsign=false")
MOST_KEPT = 512
"""Patches that are remembered: one proposal is looked at from several sides, and made by several replies."""


@dataclass(frozen=True)
class Tree:
    """Files by their paths; immutable."""

    files: Mapping[str, bytes]

    def text(self, path: str) -> str | None:
        """A file's text; None where there is no such file, or no text in it."""
        try:
            return self.files[path].decode() if path in self.files else None
        except UnicodeDecodeError:
            return None

    def with_files(self, files: Mapping[str, bytes | None]) -> "Tree":
        """The same with other contents for some; None takes a file away."""
        kept = {**self.files, **files}
        return Tree({path: data for path, data in kept.items() if data is not None})

    def applied(self, patch: str) -> "Tree":
        """The files after a patch, by ``git apply``, which writes nowhere else.

        Raises:
            DataError: it does not apply, with the place in git's words.
        """
        for file in files_of(patch):
            if file.is_binary:
                raise DataError(f"the patch changes {file.path}, which is no text: leave that file out of it")
        touched = sorted({path for file in files_of(patch) for path in _paths(file.text, file.path)})
        return self.with_files(_applied(tuple((path, self.files.get(path)) for path in touched), patch))

    def patch_to(self, other: "Tree") -> str:
        """What changes these files into others, as a patch that ``git apply`` takes."""
        changed = (p for p in {*self.files, *other.files} if self.files.get(p) != other.files.get(p))
        return _patch(tuple((p, self.files.get(p), other.files.get(p)) for p in sorted(changed)))

    def write(self, folder: Path) -> None:
        """Write the files into a new folder, as a repository of one commit.

        Raises:
            DataError: the folder is there already.
        """
        if folder.exists():
            raise DataError(f"{folder} is there already: name a folder that is not")
        folder.mkdir(parents=True)
        _write(folder, self.files)
        _commit(folder)


@lru_cache(maxsize=MOST_KEPT)
def _applied(files: tuple[tuple[str, bytes | None], ...], patch: str) -> Mapping[str, bytes | None]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, {path: data for path, data in files if data is not None})
        git(["init", "-q", "--template="], folder=folder)
        try:
            git(["apply", "--whitespace=nowarn"], folder=folder, given=patch)
        except DataError as error:
            raise DataError(f"the patch does not apply: {error.message.partition(': ')[2]}") from error
        return {path: _read(folder / path) for path, _ in files}


@lru_cache(maxsize=MOST_KEPT)
def _patch(changed: tuple[tuple[str, bytes | None, bytes | None], ...]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, {path: before for path, before, _ in changed if before is not None})
        _commit(folder)
        for path, _, _ in changed:
            (folder / path).unlink(missing_ok=True)
        _write(folder, {path: after for path, _, after in changed if after is not None})
        git(["add", "-A"], folder=folder)
        return git(["diff", "--cached", "--no-color", "--no-renames", "--full-index"], folder=folder)


def tree_of(path: Path, commit: str, only: Sequence[str] = ()) -> Tree:
    """The files of a repository as they were at a commit, or only some of them; links are left out.

    Raises:
        DataError: there is no such repository, no such commit, or no such file in it.
    """
    return _tree(path, Repository(path).hash(commit), tuple(only))


@lru_cache(maxsize=64)
def _tree(path: Path, sha: str, only: tuple[str, ...]) -> Tree:
    packed = Repository(path).archive(sha, only)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = [member for member in archive if member.isfile()]
        return Tree({member.name: _content(archive, member) for member in members})


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(member)
    assert opened is not None  # of a file there always is one
    return opened.read()


def _paths(text: str, path: str) -> Iterable[str]:
    """The names that one file's part of a patch speaks of, each checked."""
    named = {path}
    for line in text.split("\n@@", 1)[0].splitlines():
        for prefix in ("--- a/", "+++ b/", "rename from ", "rename to ", "copy from "):
            if line.startswith(prefix):
                named.add(line.removeprefix(prefix).rstrip("\t"))
    for name in named:
        check_inside(name)
    return named


def check_inside(path: str) -> None:
    """Refuse a path that leads elsewhere.

    Raises:
        DataError: it does.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or any(part in ("..", ".git", "") for part in parts):
        raise DataError(f"{path!r} leads out of the work tree: name a file below it")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        check_inside(path)
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _read(place: Path) -> bytes | None:
    """What a patch left there, if it is a file: a link is none."""
    try:
        return place.read_bytes() if stat.S_ISREG(place.lstat().st_mode) else None
    except FileNotFoundError:
        return None


def _commit(folder: Path) -> None:
    git(["init", "-q", "--template="], folder=folder)
    git(["add", "-A", "-f"], folder=folder)
    git([*AUTHOR, "commit", "-q", "--allow-empty", "-m", "The files of the problem"], folder=folder)
