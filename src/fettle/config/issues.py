"""Settings of problems that come from a project's own history."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.rewards import Rewarded
from fettle.config.sandbox import SandboxSettings

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, le=1)]

SUM_SLACK = 1e-9
MOST_OF_A_PART = 0.6
"""Of what tests are worth, what some of them are worth at most."""

CHANGES_IN_EDITS = """Answer with what is to change, as often as is needed, and nothing else:
<edit path="the/file.py">
the lines that go; none for a new file
=======
the lines that come
</edit>"""

CHANGES_BY_TOOLS = (
    "Mend the problem with the tools. Tests decide, some of which you do not see; leave tests as they are. "
    "When it is mended, call nothing, and say in a few sentences what you changed and why."
)


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


class IssueCredit(Frozen):
    """What a proposed change earns; the weights sum to 1, and a change that passes outranks all that do not."""

    applied: Weight = 0.05
    """For edits that can be made."""
    tests: Weight = 0.75
    """For tests: all that failed pass, and none that passed fails."""
    share: bool = False
    """Whether some of the tests that failed are worth something: their share, up to 0.6 of ``tests``."""
    similarity: Weight = 0.1
    """For changed lines that are like the solution's."""
    location: Weight = 0.05
    """For the files and functions that the solution changes."""
    quality: Weight = 0.05
    """For bringing no violation of ruff's rules, in a change no longer than it need be."""
    readability: Weight = 0.0
    """For programs that are no harder to read than they were: as long, as deep and as branched."""
    explanation: Weight = 0.0
    """For saying beside the change, in a few sentences, what is changed and why, in names that are really there."""

    @model_validator(mode="after")
    def _they_sum(self) -> "IssueCredit":
        weights = self.applied, self.tests, self.similarity, self.location, self.quality
        total = sum((*weights, self.readability, self.explanation))
        if abs(total - 1) > SUM_SLACK:
            raise ValueError(f"the weights sum to {total:g}: make it 1")
        beside = total - self.tests
        if self.tests * (1 - MOST_OF_A_PART * self.share) <= beside - self.applied:
            raise ValueError(f"tests is {self.tests:g}, with which a change that fails could earn more: raise it")
        return self


class ToolUse(Frozen):
    """A problem solved through tools: list_files, view, search, edit and run_tests, in a work tree without history."""

    call_cost: Annotated[float, Field(ge=0, lt=1)] = 0.002
    """What each call takes from the reward."""
    max_calls: Count = 24
    """Calls in one episode; one more, and it is cut short, with nothing earned."""
    call_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long one call may take; beyond that its episode has failed."""
    result_characters: Annotated[int, Field(ge=16)] = 6000
    """Where what a tool says is cut."""
    system: str | None = CHANGES_BY_TOOLS
    """System message before each problem; null for none."""


class Issues(Rewarded):
    """Problems from a history: a change is proposed, and the problem's hidden tests decide."""

    type: Literal["issues"] = "issues"
    path: str
    """Problems, as ``fettle issues validate`` writes them."""
    heldout_path: str | None = None
    """Problems to hold out, as ``fettle issues split`` writes them; null for some of ``path``."""
    repository: str
    """The repository that they were mined from."""
    credit: IssueCredit = IssueCredit()
    """What a change earns."""
    validation: Validation = Validation()
    """How tests are run."""
    characters: Count = 20_000
    """Of a question, which shows the files that the solution changes; a problem of more is refused."""
    tools: ToolUse | None = None
    """Whether the files are looked at, changed and tested through tools, over several replies, and how; null for one
    reply, which is shown the files that the solution changes."""
    numbered: bool = False
    """Whether files are shown with numbers of lines, by which edits then may tell what goes: ``<edit lines="3-4">``,
    the lines that come, ``</edit>``."""
    system: str | None = CHANGES_IN_EDITS
    """System message before each question; null for none."""
    seed: int = 0
    """Seed of the order of the problems, and of which are held out."""
    heldout: Count = 200
    """Problems kept for evaluation; what is like one of them is not trained on."""
    likeness: Annotated[float, Field(gt=0, le=1)] = 0.8
    """As of ``fettle issues split``."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""
