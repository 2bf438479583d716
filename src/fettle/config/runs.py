"""Recipes: a run of some kind, or several in a row."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.offline import PreferenceRun, RewardModelRun, SFTRun
from fettle.config.parts import FolderName
from fettle.config.rl import RLRun

PREVIOUS = "previous"
"""In the place of a model: what the stage before left."""
STAGE = "stage:"
"""Before the name of an earlier stage, wherever a model is named."""

StageConfig = Annotated[SFTRun | RewardModelRun | PreferenceRun | RLRun, Field(discriminator="type")]
"""Any single run."""


class Pipeline(Frozen):
    """Runs one after another, that go on from what earlier ones left."""

    type: Literal["pipeline"] = "pipeline"
    name: FolderName = "pipeline"
    """First part of the run folder's name."""
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    """The runs. Where a model is named, ``previous`` is what the stage before left, and ``stage:<name>`` what an
    earlier one did: the best checkpoint of a reward model, the newest of the others."""

    @model_validator(mode="after")
    def _stages_are_chained(self) -> "Pipeline":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages share a name ({', '.join(names)}): each has a folder of its own")
        for index, stage in enumerate(self.stages):
            model = stage.policy.model
            chained = model == PREVIOUS or (isinstance(model, str) and model.startswith(STAGE))
            if chained != (index > 0):
                what = "`previous` or `stage:<name>`" if index else "a model"
                raise ValueError(f"stages.{index}.policy.model must be {what}: stages are chained in order")
            for key, named in models_of(stage):
                if named.startswith(STAGE) and named.removeprefix(STAGE) not in names[:index]:
                    earlier = ", ".join(names[:index]) or "none"
                    raise ValueError(f"stages.{index}.{key} is {named}, and the earlier stages are: {earlier}")
        return self


def models_of(stage: StageConfig) -> Iterator[tuple[str, str]]:
    """Where a run names models, and which."""
    if isinstance(stage.policy.model, str):
        yield "policy.model", stage.policy.model
    if isinstance(stage, RLRun | PreferenceRun) and stage.reference is not None:
        yield "reference", stage.reference
    if isinstance(stage, RLRun):
        if stage.critic is not None and stage.critic.model is not None:
            yield "critic.model", stage.critic.model
        if stage.reward_model is not None:
            yield "reward_model.model", stage.reward_model.model
        if stage.teacher is not None:
            yield "teacher.model", stage.teacher.model


def with_models(stage: StageConfig, renamed: Callable[[str], str]) -> StageConfig:
    """The run, with another name for each model that it names."""
    for key, named in models_of(stage):
        stage = _with(stage, key.split("."), renamed(named))
    return stage


def _with(settings: Any, path: Sequence[str], value: str) -> Any:
    """Frozen settings, with ``value`` at a path of names."""
    name, *inner = path
    return settings.model_copy(update={name: _with(getattr(settings, name), inner, value) if inner else value})


RunConfig = Annotated[SFTRun | RewardModelRun | PreferenceRun | RLRun | Pipeline, Field(discriminator="type")]
"""Any recipe."""
