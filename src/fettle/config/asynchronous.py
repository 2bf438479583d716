"""What goes on beside training: replies under way when the policy is updated, and environments that are elsewhere."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from fettle.config.base import Frozen


class Finish(Frozen):
    """A reply is finished by the weights that began its batch, so that no number depends on how fast anything was."""

    type: Literal["finish"] = "finish"


class Keep(Frozen):
    """What is drawn of a reply stays, and the newest weights go on from there."""

    type: Literal["keep"] = "keep"
    tokens: Annotated[int, Field(ge=1)] = 256
    """Tokens that are drawn before newer weights are looked for; where there are none, the same ones go on."""


class Abort(Frozen):
    """What is drawn of a reply is given up, and the newest weights draw it anew."""

    type: Literal["abort"] = "abort"
    tokens: Annotated[int, Field(ge=1)] = 256
    """Tokens that are drawn before newer weights are looked for; where there are none, the same ones go on."""


InFlight = Annotated[Finish | Keep | Abort, Field(discriminator="type")]


class RayWorkers(Frozen):
    """Processes on a Ray cluster in which environments are played; each makes the environments anew from the recipe."""

    type: Literal["ray"] = "ray"
    count: Annotated[int, Field(ge=1)] = 2
    """How many processes."""
    episodes: Annotated[int, Field(ge=1)] = 100
    """Episodes that a process attends to at once; what is asked beyond that waits, and its waiting counts towards
    ``limits.step_seconds``."""
    joined_seconds: Annotated[float, Field(ge=0)] = 5.0
    """Answers to what was asked in one go come back in one go if they are there within this time, so that replies are
    drawn in the same batches, to the same bits, as where environments are played in the run's own process; 0: each
    comes back as soon as it is there."""
    cpus: Annotated[float, Field(ge=0)] = 0.0
    """Processors of a machine that each takes; 0 asks for no room, as environments mostly wait."""
    address: str | None = None
    """Which cluster: ``auto``, the one that this machine is part of; ``host:port`` or ``ray://host:port``; null: the
    engine's, where that is on Ray, and otherwise one that is started here for the run, and ended with it."""
    labels: Mapping[str, str] = {}
    """Labels of Ray of machines that may have workers, as ``ray.io/node-group: environments``; none: any."""
    start_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Seconds in which the cluster must have room for each, and it must have made its environments."""
