"""What a recipe would do, before anything is allocated: who consumes each setting, how much memory, how many tokens."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fettle.config import (
    EngineConfig,
    Frozen,
    Pipeline,
    PolicySpec,
    PreferenceRun,
    Ratings,
    RewardModelRun,
    RLRun,
    RunConfig,
    SFTRun,
    StageConfig,
    TinyModel,
)
from fettle.config.load import leaves
from fettle.engine import Capabilities
from fettle.errors import ConfigError
from fettle.losses import LOSSES
from fettle.losses.evaluation import TERMS
from fettle.training.consumers import CONSUMERS
from fettle.training.memory import memory_estimate
from fettle.training.notes import plan_notes


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of a recipe and the component that reads it."""

    key: str
    value: Any
    consumer: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    settings: tuple[Setting, ...]
    batch: tuple[tuple[str, str], ...]
    memory: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        """The sum of the estimate."""
        return sum(size for _, size in self.memory)


def plan(run: StageConfig, capabilities: Capabilities) -> Plan:
    """Resolve a recipe against what the engine can do.

    Raises:
        ConfigError: the engine cannot do what the recipe asks, or a setting has no consumer.
    """
    return _plan(run, run.policy.model, capabilities)


def _plan(run: StageConfig, model: str | TinyModel, capabilities: Capabilities) -> Plan:
    """A run, with what ``model`` tells of the shape of its policy."""
    _check(run, capabilities)
    shaped = run.model_copy(update={"policy": _shaped(run.policy, model)})
    memory = tuple(memory_estimate(shaped, device=capabilities.device))
    notes = list(plan_notes(shaped, memory, capabilities))
    arithmetic = _rl_arithmetic(run) if isinstance(run, RLRun) else _offline_arithmetic(run)
    return Plan(tuple(_settings(run)), (*arithmetic, *_paths(run, capabilities)), memory, tuple(notes))


def plans(run: RunConfig, capabilities: Callable[[EngineConfig, PolicySpec], Capabilities]) -> list[tuple[str, Plan]]:
    """A plan for each stage, by name, against what the stage's own engine can do.

    Raises:
        ConfigError: as :func:`plan` does.
    """
    stages = run.stages if isinstance(run, Pipeline) else (run,)
    first = stages[0].policy.model  # what the later stages go on with has its shape
    return [
        (stage.name, _plan(stage, first, capabilities(stage.engine, _shaped(stage.policy, first)))) for stage in stages
    ]


def _shaped(policy: PolicySpec, model: str | TinyModel) -> PolicySpec:
    return policy.model_copy(update={"model": model})


def _paths(run: StageConfig, capabilities: Capabilities) -> Iterator[tuple[str, str]]:
    """How the model would be run; a stage that draws nothing has no use for the way to sample."""
    for name, path in capabilities.paths.items():
        if name != "sampling" or isinstance(run, RLRun):
            yield name, path


def _settings(run: Frozen) -> Iterator[Setting]:
    for key, owner, name, value in leaves(run):
        if key == "type":
            continue
        if name == "type":  # which variant it is, is read by whoever reads the setting that holds it
            place, owner = _holder(run, key)
            yield Setting(key, value, _consumer(key, owner, place))
        else:
            yield Setting(key, value, _consumer(key, owner, name))


def _holder(run: Frozen, key: str) -> tuple[str, type[Frozen]]:
    """The field that holds a variant, and the class that declares it: ``reduction`` for ``reduction.type``."""
    held: Any = run
    name, owner = "", type(run)
    for part in key.split(".")[:-1]:
        if isinstance(held, tuple):
            held = held[int(part)]
        elif isinstance(held, Mapping):
            held = held[part]
        else:
            name, owner, held = part, type(held), getattr(held, part)
    return name, owner


def _consumer(key: str, owner: type[Frozen], name: str) -> str:
    row = LOSSES.get(str(owner.model_fields["type"].default)) if "type" in owner.model_fields else None
    if row is not None and name in (*inspect.signature(row.function).parameters, *TERMS):
        return "fettle.losses"
    consumer = CONSUMERS.get(owner, {}).get(name)
    if consumer is None:
        raise ConfigError(f"nobody consumes the setting {key}: take it out of the recipe")
    return f"fettle.{consumer}"


def _check(run: StageConfig, capabilities: Capabilities) -> None:
    if run.policy.precision not in capabilities.precisions:
        offered = ", ".join(capabilities.precisions)
        raise ConfigError(
            f"policy.precision is {run.policy.precision}, and the {capabilities.engine} engine offers {offered}"
        )
    if not isinstance(run, SFTRun) and run.loss.type not in capabilities.losses:
        offered = ", ".join(capabilities.losses)
        raise ConfigError(f"loss.type is {run.loss.type}, and the {capabilities.engine} engine offers {offered}")


def _rl_arithmetic(run: RLRun) -> Iterator[tuple[str, str]]:
    episodes = run.groups_per_step * run.group_size
    yield "episodes a step", f"{run.groups_per_step} groups x {run.group_size} = {episodes}"
    yield (
        "sampled tokens a step",
        f"at most {episodes} x {run.sampling.max_tokens} = {episodes * run.sampling.max_tokens}",
    )
    share, updates = run.groups_per_step // run.minibatches, run.minibatches * run.epochs
    yield (
        "optimizer steps",
        f"{run.steps} steps x {updates} = {run.steps * updates}, each on {share} groups",
    )
    yield "episodes in all", f"{run.steps} x {episodes} = {run.steps * episodes}"
    yield "evaluations", f"{1 + -(-run.steps // run.evaluation.every)} of {run.evaluation.tasks} held-out tasks"
    yield "checkpoints", f"every {run.checkpoints.every} steps, {run.checkpoints.keep} newest and the best kept"
    yield "greatest age of a batch", f"{run.max_staleness} policy versions"


def _offline_arithmetic(run: SFTRun | PreferenceRun | RewardModelRun) -> Iterator[tuple[str, str]]:
    what = "conversations" if isinstance(run, SFTRun) else "ratings" if isinstance(run.data, Ratings) else "pairs"
    yield f"{what} a step", str(run.batch_size)
    yield f"{what} in all", f"{run.steps} x {run.batch_size} = {run.steps * run.batch_size}"
    yield "evaluations", f"{1 + -(-run.steps // run.evaluation.every)}"
    yield "checkpoints", f"every {run.checkpoints.every} steps, {run.checkpoints.keep} newest and the best kept"
