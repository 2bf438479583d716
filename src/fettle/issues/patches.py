"""Patches in git's format: the files they change, what kind of files these are, and their parts."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal

from fettle.errors import DataError

Kind = Literal["source", "test", "docs", "generated"]

FILE = re.compile(r"^diff --git ", re.MULTILINE)
NAMES = re.compile(r'^diff --git "?a/(?P<old>.+?)"? "?b/(?P<new>.+?)"?$')
HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
VENDORED = re.compile(r"(^|/)(vendor|vendored|third_party|node_modules|_vendor|extern)/")
GENERATED = re.compile(r"(^|/)(.*\.lock|.*-lock\.(json|yaml)|.*_pb2(_grpc)?\.pyi?|.*\.min\.(js|css)|.*\.snap)$")
DOCS = (".md", ".rst", ".txt", ".adoc")
LANGUAGES = {
    ".py": "python", ".pyi": "python", ".rs": "rust", ".go": "go", ".js": "javascript", ".ts": "typescript",
    ".java": "java", ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".rb": "ruby", ".php": "php",
}  # fmt: skip


@dataclass(frozen=True)
class FilePatch:
    """What a patch changes in one file."""

    path: str
    """As it is afterwards, or was, if it is gone then."""
    text: str
    """The part of the patch that is about it, header and all."""

    @property
    def is_binary(self) -> bool:
        """Whether its contents are not shown."""
        return "\nBinary files " in self.text or "\nGIT binary patch" in self.text

    @property
    def is_new(self) -> bool:
        """Whether the file was not there before."""
        return "\nnew file mode " in self.text

    @property
    def is_gone(self) -> bool:
        """Whether it is not there afterwards."""
        return "\ndeleted file mode " in self.text

    @cached_property
    def removed(self) -> tuple[str, ...]:
        """The lines that go, without their ``-``."""
        return self._signed("-")

    @cached_property
    def added(self) -> tuple[str, ...]:
        """The lines that come, without their ``+``."""
        return self._signed("+")

    @property
    def kind(self) -> Kind:
        """What kind of file it is, by its name."""
        return kind_of(self.path)

    @cached_property
    def hunks(self) -> tuple[tuple[str, ...], ...]:
        """The lines of each of its parts, with their signs: `` ``, ``-`` or ``+``."""
        found: list[list[str]] = []
        before = after = 0
        for line in self.text.split("\n"):
            if before <= 0 and after <= 0:
                hunk = HUNK.match(line)
                if hunk is not None:
                    before, after = int(hunk[2] or 1), int(hunk[4] or 1)
                    found.append([])
            elif not line.startswith("\\"):  # which says that a file does not end with a newline
                signed = line or " "
                found[-1].append(signed)
                before -= signed[0] != "+"
                after -= signed[0] != "-"
        return tuple(map(tuple, found))

    def _signed(self, sign: str) -> tuple[str, ...]:
        """Its lines of one sign, without it."""
        return tuple(line[1:] for hunk in self.hunks for line in hunk if line[0] == sign)


def files_of(patch: str) -> list[FilePatch]:
    """The files of a patch, in its order.

    Raises:
        DataError: it is not in git's format.
    """
    if not patch.strip():
        return []
    places = [match.start() for match in FILE.finditer(patch)]
    if not places or patch[: places[0]].strip():
        raise DataError("a patch must be in git's format, each file beginning with 'diff --git a/... b/...'")
    found = []
    for start, end in zip(places, [*places[1:], len(patch)], strict=True):
        text = patch[start:end]
        names = NAMES.match(text.partition("\n")[0])
        if names is None:
            raise DataError(f"a patch has a file without names: {text.partition(chr(10))[0]!r}")
        found.append(FilePatch(names["old"] if "\ndeleted file mode " in text else names["new"], text))
    return found


def joined(files: Iterable[FilePatch]) -> str:
    """One patch of several files' parts."""
    return "".join(file.text if file.text.endswith("\n") else f"{file.text}\n" for file in files)


def kind_of(path: str) -> Kind:
    """What kind of file has this name."""
    name = PurePosixPath(path)
    if VENDORED.search(path) or GENERATED.search(path):
        return "generated"
    parts = {part.lower() for part in name.parts[:-1]}
    if parts & {"test", "tests", "testing"} or re.match(r"(test_.*|.*_test|conftest)$", name.stem):
        return "test"
    return "docs" if name.suffix in DOCS or parts & {"doc", "docs"} else "source"


def languages_of(files: Iterable[FilePatch]) -> tuple[str, ...]:
    """The languages that files are written in, that of most files first."""
    counts: dict[str, int] = {}
    for file in files:
        language = LANGUAGES.get(PurePosixPath(file.path).suffix)
        if language is not None:
            counts[language] = counts.get(language, 0) + 1
    return tuple(sorted(counts, key=lambda language: (-counts[language], language)))


def size_of(files: Iterable[FilePatch]) -> int:
    """How many lines are added and removed."""
    return sum(len(file.added) + len(file.removed) for file in files)


def of_kind(files: Iterable[FilePatch], *kinds: Kind) -> list[FilePatch]:
    """Those of some kinds."""
    wanted: Callable[[FilePatch], bool] = lambda file: file.kind in kinds  # noqa: E731
    return list(filter(wanted, files))
