"""Settings of problems that come from a project's own history."""

from typing import Annotated, Literal

from pydantic import Field

from fettle.config.base import Frozen
from fettle.config.sandbox import SandboxSettings

Count = Annotated[int, Field(ge=1)]


class Mining(Frozen):
    """Which commits of a history are taken for solutions of problems."""

    language: Literal["python", "rust", "go", "javascript", "typescript", "java", "c", "c++", "ruby", "php"] = "python"
    """A source file of it must be changed."""
    max_files: Count = 5
    """Source files of one change, at most."""
    max_lines: Count = 200
    """Lines added and removed in them, at most."""
    min_words: Count = 3
    """Words of a title, or of a commit's message where there is no issue, at least."""
    need_tests: bool = False
    """Whether the change must bring tests, without which nothing can be validated."""
    most: Annotated[int, Field(ge=0)] = 0
    """Problems, the newest first; 0 takes all."""


class Validation(Frozen):
    """How the tests of problems are run."""

    seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time of one run of a problem's tests."""
    plugins: tuple[str, ...] = ()
    """Plugins of pytest that the tests need, by the modules they are in: ``pytest_asyncio``. No others are loaded."""
    sandbox: SandboxSettings = SandboxSettings(memory_mib=1024, disk_mib=256, output_kib=4096)
    """Where they run; ``seconds`` above goes before its own."""


class Corpus(Frozen):
    """A repository made here, in which mistakes were made, reported and mended."""

    problems: Count = 60
    """How many."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What they are chosen by."""
    sandbox: SandboxSettings = SandboxSettings()
    """Where mistakes are tried, some of which do not end."""


class Split(Frozen):
    """Which problems are held out."""

    by: Literal["cluster", "repository", "time"] = "cluster"
    """``cluster``: clusters of likes, by chance; ``repository``: whole ones, with their forks; ``time``: what came
    last."""
    heldout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """What share is held out, at least."""
    gap_days: Annotated[float, Field(ge=0)] = 30.0
    """By time: days before the first that is held out, of which nothing is trained on."""
    likeness: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of words in a row from which on two statements are the same problem."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What is held out by chance is chosen by."""
