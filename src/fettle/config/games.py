"""Who plays the players of games."""

from typing import Annotated, Literal

from pydantic import Field

from fettle.config.base import Frozen
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
