"""Code to be written: where the problems come from, and how answers are graded."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.rewards import Rewarded
from fettle.config.sandbox import SandboxSettings

CODE_IN_A_FENCE = "Answer with one fenced block of Python code, ```python ... ```, that holds everything it needs."


class MadeProblems(Frozen):
    """Functions over numbers, lists and texts that this package makes up, each with a solution and drawn inputs."""

    type: Literal["made"] = "made"
    min_steps: Annotated[int, Field(ge=1)] = 1
    """Fewest things that a function does one after another."""
    max_steps: Annotated[int, Field(ge=1, le=8)] = 2
    """Most of them: the difficulty."""
    largest: Annotated[int, Field(ge=2, le=999)] = 9
    """Greatest number that a question names."""
    tests: Annotated[int, Field(ge=2, le=64)] = 8
    """Hidden calls by which an answer is graded."""

    @model_validator(mode="after")
    def _steps_in_order(self) -> "MadeProblems":
        if self.max_steps < self.min_steps:
            raise ValueError(f"max_steps is {self.max_steps}, below min_steps, which is {self.min_steps}")
        return self


class ListedProblems(Frozen):
    """Problems from a file."""

    type: Literal["file"] = "file"
    path: str
    """The file: JSON Lines, or one JSON list."""
    format: Literal["humaneval", "mbpp", "apps", "own"] = "own"
    """What its rows look like."""
    shown: Annotated[int, Field(ge=0)] = 1
    """Tests of each problem that its question tells, with what should come out. They earn nothing: only those that
    stay hidden do."""
    inexact: Literal["refuse", "leave_out", "run"] = "refuse"
    """What becomes of a problem some of whose asserts cannot be compared outside of the sandbox. ``leave_out`` does
    without those asserts; ``run`` runs them beside the answer, which is weaker: code that knows of it can pass them."""


class Code(Rewarded):
    """Problems whose answer is Python code, run in the sandbox on tests."""

    type: Literal["code"] = "code"
    problems: Annotated[MadeProblems | ListedProblems, Field(discriminator="type")] = MadeProblems()
    """Where the problems come from."""
    credit: Literal["all", "share"] = "all"
    """``all`` pays 1 where every hidden test is passed; ``share`` pays the share of them that are."""
    attempts: Annotated[int, Field(ge=1)] = 1
    """Answers that may be given; after a wrong one, a test that it failed is told with what came out."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-9
    """Difference, absolute or relative, within which floating-point numbers are the same."""
    sandbox: SandboxSettings = SandboxSettings(seconds=2.0)
    """Where answers are run; ``seconds`` are those of one call or of one program."""
    system: str | None = CODE_IN_A_FENCE
    """System message before each question; null for none."""
    seed: int = 0
    """Seed of the problems, or of their order and split."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Problems kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""
