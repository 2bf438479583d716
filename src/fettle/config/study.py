"""A study: which settings of a recipe are tried, where, by what score, and how the best of them is shown to be so."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.parts import FolderName

Value = bool | int | float | str | None
"""What a setting may be set to: one that holds settings of its own is reached by its inner paths."""


class Floats(Frozen):
    """Any number from ``low`` to ``high``."""

    type: Literal["float"] = "float"
    low: float
    """The smallest."""
    high: float
    """The largest."""
    log: bool = False
    """Whether each power of ten is as likely as the next."""

    @model_validator(mode="after")
    def _there_is_room(self) -> "Floats":
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}, which leaves nothing to choose from")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}, which has no logarithm: let it be above 0, or log false")
        return self


class Integers(Frozen):
    """A whole number from ``low`` to ``high``."""

    type: Literal["int"] = "int"
    low: int
    """The smallest."""
    high: int
    """The largest; not tried where ``step`` passes over it."""
    step: Annotated[int, Field(ge=1)] = 1
    """From one to the next."""

    @model_validator(mode="after")
    def _there_is_room(self) -> "Integers":
        if self.low + self.step > self.high:
            raise ValueError(
                f"low is {self.low}, high {self.high} and step {self.step}, which leaves nothing to choose from"
            )
        return self


class Choices(Frozen):
    """One of several values, that are in no order."""

    type: Literal["categorical"] = "categorical"
    choices: Annotated[tuple[Value, ...], Field(min_length=2)]
    """The values."""


Space = Annotated[Floats | Integers | Choices, Field(discriminator="type")]
"""What is tried of one setting."""


class MedianPruning(Frozen):
    """A trial ends whose best score so far is below the median of what the others had at that step."""

    type: Literal["median"] = "median"
    startup_trials: Annotated[int, Field(ge=1)] = 5
    """Trials that must have been finished before."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of a trial before which it is left alone."""


class HyperbandPruning(Frozen):
    """Of the trials of a bracket that have come equally far, the best go on (Li et al., 2016, arXiv:1603.06560)."""

    type: Literal["hyperband"] = "hyperband"
    min_steps: Annotated[int, Field(ge=1)] = 1
    """Steps after which a trial may first be ended."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on."""


class NoPruning(Frozen):
    """Every trial is carried through."""

    type: Literal["none"] = "none"


Pruning = Annotated[MedianPruning | HyperbandPruning | NoPruning, Field(discriminator="type")]
"""Which trials are ended early, by the scores on their way."""


class Processes(Frozen):
    """Processes of the machine that the study was begun on."""

    type: Literal["processes"] = "processes"
    count: Annotated[int, Field(ge=1)] = 1
    """How many; one is the command itself."""


class RayTasks(Frozen):
    """Tasks of Ray; every machine of the cluster must see the study's folder, and what the recipe reads."""

    type: Literal["ray"] = "ray"
    count: Annotated[int, Field(ge=1)] = 2
    """How many at once, as far as the cluster has room."""
    address: str | None = None
    """Of the cluster: ``host:6379``, or ``auto`` on one of its machines; null begins one here, which ends with the
    command."""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """Of a machine, taken by each."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """The same."""

    @model_validator(mode="after")
    def _one_of_its_machines_speaks_to_it(self) -> "RayTasks":
        if self.address is not None and self.address != "auto" and not re.fullmatch(r"[\w.\-\[\]:]+:\d+", self.address):
            raise ValueError(
                f"address is {self.address!r}, which is no cluster: write host:6379, or auto on one of its machines"
            )
        return self


Workers = Annotated[Processes | RayTasks, Field(discriminator="type")]
"""Who runs the trials of a study."""


class Study(Frozen):
    """Trials of a recipe with other settings."""

    name: FolderName = "study"
    """First part of the study folder's name."""
    space: dict[str, Space]
    """What is tried, by the dotted paths of settings, as in ``stages.1.optimizer.learning_rate``."""
    metric: str = "heldout/reward"
    """The score of a trial: of the last evaluation of its last stage."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """What is better: more of it, or less."""
    trials: Annotated[int, Field(ge=1)] = 20
    """How many, with those that fail, are ended early, or repeat another."""
    sampler: Literal["tpe", "random"] = "tpe"
    """What proposes settings: a tree-structured Parzen estimator (Bergstra et al., 2011), or chance."""
    startup_trials: Annotated[int, Field(ge=1)] = 10
    """Trials that are proposed by chance before the estimator has enough to go by."""
    pruning: Pruning = MedianPruning()
    """Which trials are ended early."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What is proposed is drawn by it; the trials' own seed is the recipe's."""
    seeds: Annotated[tuple[int, ...], Field(min_length=2)] = (101, 102, 103)
    """Seeds of the runs that compare the best settings with those of the recipe as it is."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a trial is begun again whose process was killed."""
    workers: Workers = Processes()
    """Who runs the trials."""
    storage: str = "journal"
    """Where trials are kept: ``journal`` or ``sqlite``, a file in the study's folder; or the address of a database,
    as in ``postgresql://user@host/name``."""

    @model_validator(mode="after")
    def _there_is_something_to_try(self) -> "Study":
        if not self.space:
            raise ValueError(
                "space is empty: name a setting in it, as in "
                "optimizer.learning_rate: {type: float, low: 1e-5, high: 1e-3, log: true}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds are {', '.join(map(str, self.seeds))}, of which some are the same: let them differ"
            )
        if isinstance(self.workers, RayTasks) and self.workers.address is not None and self.storage == "sqlite":
            raise ValueError(
                "storage is sqlite, whose locks the machines of a cluster do not share: write journal, or "
                "postgresql://user@host/name"
            )
        return self
