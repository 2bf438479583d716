"""Recipes: a run of some kind, or several in a row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.games import FrozenPlayer, OwnPlayer
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
            if (isinstance(model, str) and names_stage(model)) != (index > 0):
                what = "`previous` or `stage:<name>`" if index else "a model"
                raise ValueError(f"stages.{index}.policy.model must be {what}: stages are chained in order")
            for key, named in models_of(stage):
                if names_stage(named):
                    _check_fits(stage, key, named, self.stages[:index])
        return self


def names_stage(model: str) -> bool:
    """Whether a name stands for what a stage of a pipeline left."""
    return model == PREVIOUS or model.startswith(STAGE)


def takes(stage: StageConfig, key: str) -> tuple[type[StageConfig], ...]:
    """The kinds of run whose weights do where a run names a model under ``key``."""
    if key == "reward_model.model":
        return (RewardModelRun,)
    if key == "critic.model" or isinstance(stage, RewardModelRun):
        return (SFTRun, PreferenceRun, RLRun, RewardModelRun)
    return (SFTRun, PreferenceRun, RLRun)


def _check_fits(stage: StageConfig, key: str, named: str, earlier: Sequence[StageConfig]) -> None:
    """Refuses a name that no earlier stage has, and a stage that leaves another kind of model than is needed."""
    place = f"stages.{len(earlier)}.{key} is {named}"
    by_name = {f"{STAGE}{each.name}": each for each in earlier}
    if earlier:
        by_name[PREVIOUS] = earlier[-1]
    if named not in by_name:
        names = ", ".join(each.name for each in earlier) or "none"
        raise ValueError(f"{place}, and the earlier stages are: {names}")
    found, kinds = by_name[named], takes(stage, key)
    if isinstance(found, kinds):
        return
    fitting = " or ".join(f"{STAGE}{each.name}" for each in earlier if isinstance(each, kinds))
    if key == "reward_model.model":
        what, mend = f"{found.type}, which gives no scores", fitting or "an earlier stage of type reward_model"
    else:
        what, mend = "reward_model, which writes no replies", fitting or "an earlier stage of another type"
    raise ValueError(f"{place}, a stage of type {what}: name {mend}")


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
        for name, player in stage.players.items():
            if isinstance(player, FrozenPlayer) and player.model is not None:
                yield f"players.{name}.model", player.model
            if isinstance(player, OwnPlayer) and player.policy is not None:
                yield f"players.{name}.policy.model", str(player.policy.model)


def with_models(stage: StageConfig, renamed: Callable[[str], str]) -> StageConfig:
    """The run, with another name for each model that it names."""
    for key, named in models_of(stage):
        stage = _with(stage, key.split("."), renamed(named))
    return stage


def _with(settings: Any, path: Sequence[str], value: str) -> Any:
    """Frozen settings, with ``value`` at a path of names."""
    name, *inner = path
    if isinstance(settings, Mapping):
        return {**settings, name: _with(settings[name], inner, value)}
    return settings.model_copy(update={name: _with(getattr(settings, name), inner, value) if inner else value})


RunConfig = Annotated[SFTRun | RewardModelRun | PreferenceRun | RLRun | Pipeline, Field(discriminator="type")]
"""Any recipe."""
