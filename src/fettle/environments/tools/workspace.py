"""Files of one episode, in memory: nothing that is named can lead out, since there is nowhere to go."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from fettle.environments.tools.tool import ToolMistake

MOST_FILES = 64
MOST_CHARACTERS = 100_000
"""Of all files together."""
LONGEST_PATH = 200


class Workspace:
    """Texts by their path. The methods are what a policy may call."""

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        self.files: dict[str, str] = {inside(path): text for path, text in (files or {}).items()}

    def list_files(self) -> str:
        """Names the files of the workspace."""
        return "\n".join(sorted(self.files)) or "there are no files"

    def read_file(self, path: str) -> str:
        """Reads a file of the workspace."""
        name = inside(path)
        if name not in self.files:
            raise ToolMistake(f"there is no file {name}: the files are {', '.join(sorted(self.files)[:20]) or 'none'}")
        return self.files[name]

    def write_file(self, path: str, text: str) -> str:
        """Writes a file of the workspace, in the place of what it held."""
        name = inside(path)
        others = sum(len(held) for other, held in self.files.items() if other != name)
        if others + len(text) > MOST_CHARACTERS:
            raise ToolMistake(f"the workspace holds at most {MOST_CHARACTERS} characters: write less")
        if name not in self.files and len(self.files) >= MOST_FILES:
            raise ToolMistake(f"the workspace holds at most {MOST_FILES} files: write into one that is there")
        folders = {str(parent) for parent in PurePosixPath(name).parents}
        if folders & self.files.keys() or any(other.startswith(f"{name}/") for other in self.files):
            raise ToolMistake(f"{name} is both a file and a folder: choose another name")
        self.files[name] = text
        return f"{name} holds {len(text)} characters"


def inside(path: str) -> str:
    """The path as the workspace knows it.

    >>> inside("./notes//today.txt")
    'notes/today.txt'

    Raises:
        ToolMistake: it leads out, or is no path.
    """
    if not path or len(path) > LONGEST_PATH or not path.isprintable() or "\\" in path:
        raise ToolMistake(f"{path[:60]!r} is no path: use up to {LONGEST_PATH} letters, digits and /")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or path.startswith("~"):
        raise ToolMistake(f"{path!r} leads out of the workspace: name a file inside it, such as notes.txt")
    if not pure.parts:
        raise ToolMistake("a file needs a name, such as notes.txt")
    return str(pure)
