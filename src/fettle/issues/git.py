"""What a git repository says of itself. It is only read."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fettle.errors import DataError
from fettle.issues.records import Project

FIELDS = "%H%x1f%P%x1f%an%x1f%ae%x1f%at%x1f%B"
END = "\x1e"
REMOTE = re.compile(
    r"(?:(?:https?|ssh|git)://(?P<host>[^/\s]+)/|(?:[^/@:\s]+@)?(?P<short>[^/@:\s]{2,}):(?!//))"
    r"(?:\S*/)?(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?"
)
"""Where a repository was cloned from, unless that is a folder."""


class _NoGitError(DataError):
    """Git itself is not there."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of the main line."""

    sha: str
    parents: tuple[str, ...]
    author: str
    email: str
    at: datetime
    message: str

    @property
    def subject(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0]


class Repository:
    """A repository on this machine.

    Raises:
        DataError: it is none, or has no history, or only a part of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            inside = self._git("rev-parse", "--show-prefix").strip()
        except _NoGitError:
            raise
        except DataError as error:
            raise DataError(f"{path} is no git repository: give the folder of one") from error
        if inside:
            top = self._git("rev-parse", "--show-toplevel").strip()
            raise DataError(f"{path} is a folder inside the repository {top}: give that")
        if self._git("rev-parse", "--is-shallow-repository").strip() == "true":
            raise DataError(f"{path} has only a part of its history: run git fetch --unshallow in it")
        try:
            self._git("rev-parse", "--verify", "--quiet", "HEAD")
        except DataError as error:
            raise DataError(f"{path} has no commit: give a repository that has a history") from error

    @property
    def name(self) -> str:
        """``owner/name`` by where it was cloned from, or its folder's name."""
        url = self._origin
        if not url:
            return f"local/{self.path.resolve().name}"
        parts = url.removesuffix("/").removesuffix(".git").replace(":", "/").split("/")
        return "/".join(parts[-2:]) if len(parts) > 1 else f"local/{parts[-1]}"

    @property
    def project(self) -> Project | None:
        """What its host calls it; None where it was cloned from no host."""
        found = REMOTE.fullmatch(self._origin)
        return Project.at(found["name"], found["host"] or found["short"]) if found else None

    @property
    def _origin(self) -> str:
        """Where it was cloned from; empty for nowhere."""
        try:
            return self._git("remote", "get-url", "origin").strip()
        except DataError:
            return ""

    @property
    def root(self) -> str:
        """Its oldest commit, which mirrors and forks share."""
        return self._git("rev-list", "--max-parents=0", "HEAD").split()[-1]

    def main_line(self) -> Iterator[Commit]:
        """The commits of the main line, newest first: of a merge, only the merge."""
        text = self._git("log", "--first-parent", f"--format={FIELDS}{END}", "HEAD")
        for record in text.split(END):
            if not record.strip():
                continue
            sha, parents, author, email, at, message = record.strip("\n").split("\x1f", 5)
            moment = datetime.fromtimestamp(int(at), UTC)
            yield Commit(sha, tuple(parents.split()), author, email, moment, message.strip())

    def branch_messages(self, merge: Commit) -> tuple[str, ...]:
        """The messages of the commits that a merge brought."""
        text = self._git("log", "--format=%B%x1e", f"{merge.parents[0]}..{merge.sha}", "--not", merge.parents[0])
        return tuple(message.strip() for message in text.split(END) if message.strip())

    def ancestors(self, commits: Sequence[str]) -> frozenset[str]:
        """The commits that others stand upon, and these themselves.

        Raises:
            DataError: one of them is not there.
        """
        return frozenset(self._git("rev-list", "--stdin", given="\n".join(commits)).split())

    def diff(self, before: str, after: str) -> str:
        """What changed, as a patch that ``git apply`` takes."""
        return self._git("diff", "--no-color", "--no-ext-diff", "--no-renames", "--full-index", before, after)

    def content(self, name: str) -> str:
        """The text of a file by its hash, or as ``commit:path``.

        Raises:
            DataError: there is none.
        """
        return self._git("cat-file", "blob", name)

    def hash(self, commit: str) -> str:
        """The whole hash of a commit, however it is named.

        Raises:
            DataError: there is none.
        """
        try:
            return self._git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}").strip()
        except DataError as error:
            raise DataError(f"{self.path} has no commit {commit}: is it the repository of these problems?") from error

    def archive(self, commit: str, paths: Sequence[str] = ()) -> bytes:
        """The files of a commit as a tar archive, with nothing of the history; only those named, if any are."""
        return _asked(["--literal-pathspecs", "archive", "--format=tar", commit, "--", *paths], self.path, b"")

    def patch_id(self, patch: str) -> str:
        """A hash that cherry-picks of the same change share; empty for an empty patch."""
        return self._git("patch-id", "--stable", given=patch).partition(" ")[0]

    def _git(self, *words: str, given: str = "") -> str:
        return git(words, folder=self.path, given=given)


def git(words: Sequence[str], *, folder: Path, given: str = "") -> str:
    """What git prints, asked in a folder, whatever the user's own settings are.

    Raises:
        DataError: it refused, with its own words, or is not installed.
    """
    return _asked(words, folder, given.encode()).decode(errors="replace")


def _asked(words: Sequence[str], folder: Path, given: bytes) -> bytes:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", "GIT_PAGER": "cat"}
    command = ["git", "-c", "core.quotePath=false", "-c", "safe.directory=*", *words]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, input=given, capture_output=True, check=False)
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.is_dir():
            raise _NoGitError("git is not installed, and histories are read with it: install git") from error
        raise DataError(f"{folder} is no folder: histories are read with git") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise DataError(f"git {_verb(words)} failed in {folder}: {said[0].removeprefix('error: ')}")
    return done.stdout


def _verb(words: Sequence[str]) -> str:
    """The word that says what git is to do."""
    options = [place for place, word in enumerate(words) if word == "-c"]
    return words[options[-1] + 2] if options else words[0]
