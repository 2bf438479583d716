"""Mathematics: where the problems come from, and how answers are compared."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.rewards import Rewarded
from fettle.config.sandbox import SandboxSettings

ONE_ANSWER = "Work it out, then give one final answer as <answer>...</answer>."

Kind = Literal["arithmetic", "linear_equations", "systems", "inequalities", "word_problems"]


class MadeMathematics(Frozen):
    """Problems that this package makes up."""

    type: Literal["made"] = "made"
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = (
        "arithmetic",
        "linear_equations",
        "systems",
        "inequalities",
        "word_problems",
    )
    """Kinds of problems; each is as likely as any other."""
    difficulty: Annotated[int, Field(ge=1, le=5)] = 1
    """From one step (1) to fractions, three unknowns and equations to be set up (5)."""


class MathematicsFile(Frozen):
    """Problems from a file: a JSON object a line, with ``question`` and ``answer``, or ``problem`` and ``solution``."""

    type: Literal["file"] = "file"
    path: str
    """The file; an answer stands after ``####``, in the last ``\\boxed{...}`` of a solution, or alone."""
    checker: Literal["exact", "symbolic"] = "symbolic"
    """``exact`` takes what it cannot read for wrong; ``symbolic`` gives it to math-verify, in the sandbox."""
    sandbox: SandboxSettings = SandboxSettings(seconds=1.0, memory_mib=1024)
    """Where math-verify runs; ``seconds`` are those of one comparison."""


class Mathematics(Rewarded):
    """Problems whose answer is a number, an expression, a set, an interval or a word."""

    type: Literal["math"] = "math"
    problems: Annotated[MadeMathematics | MathematicsFile, Field(discriminator="type")] = MadeMathematics()
    """Where the problems come from."""
    attempts: Annotated[int, Field(ge=1)] = 1
    """Answers that may be given. A wrong one is called wrong, and no more is said; a right one earns 1 divided by its
    number."""
    system: str | None = ONE_ANSWER
    """System message before each question; null for none."""
    seed: int = 0
    """Seed of the problems, or of their order and split."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Problems kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""


class WorkedMathematics(Frozen):
    """Worked solutions to problems that this package makes up, some of them with a mistake."""

    type: Literal["worked_mathematics"] = "worked_mathematics"
    tasks: Mathematics = Mathematics()
    """Where the problems come from; its held-out ones stay held out here too."""
    slips: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the solutions that make a mistake."""
    size: Annotated[int, Field(ge=1)] = 20000
    """How many solutions to write."""
    seed: int = 0
    """Seed of the choice between right and wrong."""

    @model_validator(mode="after")
    def _tasks_are_only_shown(self) -> "WorkedMathematics":
        if isinstance(self.tasks.problems, MathematicsFile):
            raise ValueError("tasks.problems is a file, whose solutions are not known to be worked out: use made ones")
        played = {"weight": self.tasks.weight != 1, "attempts": self.tasks.attempts != 1, "rewards": self.tasks.rewards}
        for name in (name for name, given in played.items() if given):
            raise ValueError(f"tasks.{name} is about playing, and worked solutions are only shown: leave it out")
        return self
