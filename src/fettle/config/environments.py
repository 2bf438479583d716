"""Where tasks and rewards come from."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from fettle.config.adapters import Gymnasium, OpenEnv, Plugin, Verifiers
from fettle.config.coding import Code
from fettle.config.games import Debate, Dialogue
from fettle.config.issues import Issues
from fettle.config.judge import JudgedReward, check_judge
from fettle.config.mathematics import Mathematics
from fettle.config.remote import Remote
from fettle.config.rewards import Rewarded
from fettle.config.sandbox import SandboxSettings
from fettle.config.tools import Tools

ANSWER_IN_TAGS = "Work it out, then give the final answer as <answer>...</answer>."


class ReasoningGym(Rewarded):
    """Tasks that the reasoning-gym package generates, scored by its own scorer."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    task: str = "chain_sum"
    """A dataset of reasoning-gym by name."""
    settings: dict[str, JsonValue] = {}
    """Passed to the dataset as they are (``max_terms: 3``, ...)."""
    system: str | None = ANSWER_IN_TAGS
    """System message before each question; null for none."""
    partial_credit: bool = False
    """Pay the scorer's partial credit; otherwise only a full score earns 1."""
    scoring: Literal["needed", "sandbox"] = "needed"
    """``needed``: scorers that run answers as Python code, or that an answer can keep busy, work in the sandbox, and
    those that only compare work here. ``sandbox``: all of them, at about a hundredth of a second an answer."""
    sandbox: SandboxSettings = SandboxSettings(seconds=1.0, memory_mib=1024)
    """Where scorers work that do not work here; ``seconds`` are those of one answer."""
    seed: int = 0
    """Seed of the tasks."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Tasks kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""


class Arithmetic(Rewarded):
    """Sums and differences that this package generates."""

    type: Literal["arithmetic"] = "arithmetic"
    min_terms: Annotated[int, Field(ge=2)] = 2
    """Fewest numbers in an expression."""
    max_terms: Annotated[int, Field(ge=2)] = 2
    """Most numbers in an expression."""
    digits: Annotated[int, Field(ge=1, le=9)] = 2
    """Digits of each number: the difficulty."""
    system: str | None = ANSWER_IN_TAGS
    """System message before each question; null for none."""
    seed: int = 0
    """Seed of the tasks."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Tasks kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""

    @model_validator(mode="after")
    def _terms_in_order(self) -> "Arithmetic":
        if self.max_terms < self.min_terms:
            raise ValueError(f"max_terms is {self.max_terms}, below min_terms, which is {self.min_terms}")
        return self


class JSONL(Rewarded):
    """Questions from a file: one JSON object a line, with ``prompt`` or ``messages``, and ``answer``."""

    type: Literal["jsonl"] = "jsonl"
    path: str
    """The file."""
    reward: str = "exact_match"
    """A reward by name, ``judge``, or ``package.module:function``."""
    answer_in: Literal["tags", "text"] = "tags"
    """``tags`` scores what stands in exactly one <answer>...</answer>; ``text`` scores the whole reply."""
    judge: JudgedReward | None = None
    """Who is asked where ``reward`` is ``judge``."""
    system: str | None = ANSWER_IN_TAGS
    """System message before each question that brings none; null for none."""
    seed: int = 0
    """Seed of the order and of the split."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Rows kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""

    @model_validator(mode="after")
    def _a_judge_is_asked(self) -> "JSONL":
        check_judge(self.reward, self.judge)
        return self


EnvironmentConfig = Annotated[
    ReasoningGym
    | Arithmetic
    | JSONL
    | Mathematics
    | Code
    | Issues
    | Tools
    | Debate
    | Dialogue
    | Remote
    | Verifiers
    | Gymnasium
    | OpenEnv
    | Plugin,
    Field(discriminator="type"),
]
"""An environment by its type."""
