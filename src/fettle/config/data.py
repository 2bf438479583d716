"""What is learned from, where nothing is sampled: demonstrations, episodes, preferences and ratings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.coding import Code
from fettle.config.environments import Arithmetic, ReasoningGym
from fettle.config.games import Debate
from fettle.config.mathematics import WorkedMathematics
from fettle.config.tools import WorkedCalls


class Conversations(Frozen):
    """Conversations from a file: one JSON object a line, with ``messages``, or ``prompt`` and ``completion``."""

    type: Literal["conversations"] = "conversations"
    path: str
    """The file."""
    heldout_path: str | None = None
    """A file of what is held out, nothing of which may be asked in ``path``; null holds out some of ``path``."""
    heldout: Annotated[int, Field(ge=1)] = 50
    """Rows kept for evaluation."""
    seed: int = 0
    """Seed of the split."""


class WorkedSums(Frozen):
    """Worked solutions to an environment's sums, some of them with a slip."""

    type: Literal["worked_sums"] = "worked_sums"
    tasks: Annotated[ReasoningGym | Arithmetic, Field(discriminator="type")] = ReasoningGym()
    """Where the sums come from; its held-out tasks stay held out here too."""
    slips: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the solutions that get the sum wrong."""
    size: Annotated[int, Field(ge=1)] = 20000
    """How many solutions to write."""
    seed: int = 0
    """Seed of the slips."""

    @model_validator(mode="after")
    def _tasks_are_only_shown(self) -> "WorkedSums":
        _check_only_shown(self.tasks, "worked sums")
        return self


class WorkedDebates(Frozen):
    """Debates in which everybody quotes some piece of the evidence, for whichever side: to learn the form from."""

    type: Literal["worked_debates"] = "worked_debates"
    tasks: Debate = Debate()
    """Where the claims come from; its held-out ones stay held out here too."""
    size: Annotated[int, Field(ge=1)] = 10000
    """How many debates to write; each is as many conversations as it has players."""
    seed: int = 0
    """Seed of what is quoted."""

    @model_validator(mode="after")
    def _tasks_are_only_shown(self) -> "WorkedDebates":
        if self.tasks.weight != 1:
            raise ValueError("tasks.weight mixes environments, and worked debates come from one: leave it out")
        return self


class WorkedCode(Frozen):
    """Programs that answer an environment's problems, some of them another one's."""

    type: Literal["worked_code"] = "worked_code"
    tasks: Code = Code()
    """Where the problems come from; its held-out tasks stay held out here too."""
    slips: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the answers that are another problem's, and so most likely wrong."""
    size: Annotated[int, Field(ge=1)] = 20000
    """How many answers to write."""
    seed: int = 0
    """Seed of the slips."""

    @model_validator(mode="after")
    def _tasks_are_only_shown(self) -> "WorkedCode":
        if self.tasks.weight != 1 or self.tasks.rewards:
            raise ValueError(
                "tasks.weight and tasks.rewards are for training, and worked code is only shown: drop them"
            )
        return self


class Episodes(Frozen):
    """Episodes from a file: one JSON object a line, with ``messages``, and ``reward`` or ``rewards``."""

    type: Literal["episodes"] = "episodes"
    path: str
    """The file."""
    heldout_path: str | None = None
    """A file of what is held out, nothing of which may be asked in ``path``; null holds out some of ``path``."""
    heldout: Annotated[int, Field(ge=1)] = 50
    """Prompts kept for evaluation, with every episode that begins with one of them."""
    seed: int = 0
    """Seed of the split."""
    min_reward: float | None = None
    """Episodes that earned less are left out; null leaves none out."""


class Preferences(Frozen):
    """Pairs of replies from a file: one JSON object a line, with ``prompt``, ``chosen`` and ``rejected``."""

    type: Literal["preferences"] = "preferences"
    path: str
    """The file."""
    heldout: Annotated[int, Field(ge=1)] = 50
    """Prompts kept for evaluation, with every pair of theirs."""
    seed: int = 0
    """Seed of the split."""


class Ratings(Frozen):
    """Replies rated good or bad, from a file: one JSON object a line, with ``prompt``, ``completion``, ``label``."""

    type: Literal["ratings"] = "ratings"
    path: str
    """The file."""
    heldout: Annotated[int, Field(ge=1)] = 50
    """Prompts kept for evaluation, with every reply of theirs."""
    seed: int = 0
    """Seed of the split."""


class WorkedPairs(Frozen):
    """Pairs of worked solutions to an environment's sums: a right one is chosen over a spoilt one."""

    type: Literal["worked_pairs"] = "worked_pairs"
    tasks: Annotated[ReasoningGym | Arithmetic, Field(discriminator="type")] = ReasoningGym()
    """Where the sums come from; its held-out tasks stay held out here too."""
    size: Annotated[int, Field(ge=1)] = 20000
    """How many pairs to write."""
    malformed: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the rejected whose sum is right and whose answer tags are missing or repeated; the rest have a slip."""
    seed: int = 0
    """Seed of the slips."""

    @model_validator(mode="after")
    def _tasks_are_only_shown(self) -> "WorkedPairs":
        _check_only_shown(self.tasks, "worked pairs")
        return self


DemonstrationsConfig = Annotated[
    Conversations | WorkedSums | WorkedMathematics | WorkedCode | WorkedDebates | WorkedCalls | Episodes,
    Field(discriminator="type"),
]
"""What supervised fine-tuning learns from."""

PreferenceDataConfig = Annotated[Preferences | Ratings | WorkedPairs, Field(discriminator="type")]
"""What preference learning and reward models learn from."""


def _check_only_shown(tasks: ReasoningGym | Arithmetic, by: str) -> None:
    """Refuses what is said about the mixing or the scoring of tasks whose solutions are only shown."""
    if tasks.weight != 1:
        raise ValueError(f"tasks.weight mixes environments, and {by} come from one: leave it out")
    if isinstance(tasks, ReasoningGym) and tasks.partial_credit:
        raise ValueError(f"tasks.partial_credit is about scoring, and {by} are not scored: leave it out")
