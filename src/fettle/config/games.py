"""Games, and who plays their players."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.judge import JudgedReward, ModelJudge, RuleJudge, check_judge
from fettle.config.policy import AdamW, PolicySpec


class FrozenPlayer(Frozen):
    """A model that plays and never learns."""

    type: Literal["frozen"] = "frozen"
    model: str | None = None
    """A folder or a hub name; null is where the run starts."""


class PastPlayer(Frozen):
    """The policy as it was: a frozen copy, made anew from time to time."""

    type: Literal["past"] = "past"
    every: Annotated[int, Field(ge=1)] = 20
    """Steps from one copy to the next; before the first of them it is where the run starts."""


class OwnPlayer(Frozen):
    """Another policy, which learns what this player should do, and nothing else."""

    type: Literal["own"] = "own"
    policy: PolicySpec | None = None
    """What is trained; null is a second one of what the run starts from."""
    optimizer: AdamW | None = None
    """How it is stepped; null is as the policy is."""


PlayerConfig = Annotated[FrozenPlayer | PastPlayer | OwnPlayer, Field(discriminator="type")]
"""Who plays a player that is not the policy itself."""


class Debate(Frozen):
    """Claims that two sides argue over from evidence, until a judge says who won."""

    type: Literal["debate"] = "debate"
    path: str | None = None
    """A file of claims, one JSON object a line, with ``claim`` and ``evidence``; null makes up claims that one side
    beats another."""
    evidence: Annotated[int, Field(ge=2, le=20)] = 5
    """Pieces of evidence for a claim that is made up."""
    rounds: Annotated[int, Field(ge=1)] = 2
    """How often each side speaks."""
    order: Literal["alternating", "simultaneous"] = "alternating"
    """``alternating``: each answers what it has heard; ``simultaneous``: both speak at once, then hear each other."""
    team: Annotated[int, Field(ge=1)] = 1
    """Debaters on each side, who speak in turn, and win and lose together."""
    zero_sum: bool = True
    """Pay 1 for winning, -1 for losing and 0 for neither; otherwise 1, 0 and a half."""
    judge: Annotated[RuleJudge | ModelJudge, Field(discriminator="type")] = RuleJudge()
    """Who decides."""
    system: str | None = None
    """System message for every debater; null for none."""
    seed: int = 0
    """Seed of the claims, or of their order and split."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Claims kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""

    @model_validator(mode="after")
    def _everybody_speaks(self) -> "Debate":
        if self.team > self.rounds:
            raise ValueError(f"team is {self.team}, and only {self.rounds} of a side come to speak: raise rounds")
        return self


class Dialogue(Frozen):
    """Conversations whose other side is a model too: somebody who wants something, a teacher, an examiner.

    Who plays ``assistant`` and who ``user`` is the run's affair (``players``).
    """

    type: Literal["dialogue"] = "dialogue"
    path: str
    """One JSON object a line: ``assistant`` and ``user``, what each of them is told, and the ``answer``."""
    turns: Annotated[int, Field(ge=1)] = 3
    """How often each side speaks, at most."""
    begins: Literal["user", "assistant"] = "user"
    """Who speaks first."""
    ends_with: str | None = None
    """A text by which the user ends the dialogue; null for none."""
    reward: str = "exact_match"
    """What the assistant's last words earn: a reward by name, ``judge``, or ``package.module:function``."""
    answer_in: Literal["tags", "text"] = "tags"
    """``tags`` scores what stands in exactly one <answer>...</answer>; ``text`` scores all of the last words."""
    judge: JudgedReward | None = None
    """Who is asked where ``reward`` is ``judge``."""
    user_reward: Literal["same", "opposite", "none"] = "same"
    """What the user earns of that: the same as a team, the opposite as an opponent, or nothing."""
    assistant_system: str | None = None
    """System message for the assistant; null for none."""
    user_system: str | None = None
    """System message for the user; null for none."""
    seed: int = 0
    """Seed of the order and of the split."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Rows kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""

    @model_validator(mode="after")
    def _a_judge_is_asked(self) -> "Dialogue":
        check_judge(self.reward, self.judge)
        return self
