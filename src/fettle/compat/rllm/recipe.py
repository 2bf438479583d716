"""The recipe that documented settings are: supervised fine-tuning on what solved problems, then reinforcement."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fettle.compat.rllm.config import RLLMConfig, RLLMDistributedConfig
from fettle.compat.rllm.material import Material
from fettle.compat.rllm.places import Tree, asked, put, rewards
from fettle.config import Issues, Pipeline, RLRun, SFTRun
from fettle.config.document import read, written
from fettle.config.issues import CHANGES_IN_EDITS
from fettle.config.layers import laid_over
from fettle.config.load import dump, load
from fettle.errors import ConfigError
from fettle.tracking import write_atomically

NAME = "recipe.yaml"

MINIMAL: Mapping[str, Any] = MappingProxyType(
    {
        "type": "pipeline",
        "name": "issues",
        "stages": (
            {
                "type": "sft",
                "name": "warm-up",
                "policy": {"model": {"type": "tiny", "context": 1024}},
                "data": {"type": "conversations"},
                "steps": 200,
                "optimizer": {"learning_rate": 2e-3},
            },
            {
                "type": "rl",
                "name": "reinforce",
                "policy": {"model": "previous"},
                "environments": [{"type": "issues"}],
                "preset": "grpo",
                "steps": 50,
                "groups_per_step": 4,
                "optimizer": {"learning_rate": 2e-4},
            },
        ),
    }
)
"""What settings are laid over where nothing else is named."""


FIXED: Mapping[str, str] = MappingProxyType(
    {
        "use_ray": "there is no other way to several machines here",
        "cpus_per_worker": "a rank takes what engine.threads says",
        "memory_per_worker_gb": "a rank takes what it needs",
    }
)
"""Of other machines, what has one value, and why."""


@dataclass(frozen=True, slots=True)
class Base:
    """What settings are laid over, and how."""

    tree: Mapping[str, Any]
    whole: bool
    """Whether every documented setting counts, also one that was not given; else only what was given does."""
    system: str
    """What each question begins with; empty for nothing."""
    numbered: bool = False
    """Whether questions show lines with their numbers."""


def documented_base(config: RLLMConfig) -> Base:
    """The documented settings alone."""
    return Base(MINIMAL, True, system_of(config))


def recipe_base(recipe: Path | None, config: RLLMConfig) -> Base:
    """A recipe, of which documented settings change what was given.

    Raises:
        ConfigError: it cannot be read, or is no pipeline.
    """
    said = "system_prompt" in config.training.model_fields_set
    if recipe is None:
        return Base(MINIMAL, False, system_of(config) if said else CHANGES_IN_EDITS)
    loaded = load(recipe)
    if not isinstance(loaded, Pipeline):
        raise ConfigError(f"{recipe} is a single run of type {loaded.type}: give a pipeline, which warms up first")
    tree = read(recipe.read_text(encoding="utf-8"), lambda line: f"{recipe}:{line}").tree
    environments = [one for stage in loaded.stages if isinstance(stage, RLRun) for one in stage.environments]
    found = next((one for one in environments if isinstance(one, Issues)), None)
    if found is None:
        raise ConfigError(f"{recipe} has no environment of type issues: give a pipeline that learns on one")
    return Base(tree, False, system_of(config) if said else found.system or "", found.numbered)


def system_of(config: RLLMConfig) -> str:
    """What questions begin with: the documented sentence, and how a change is written."""
    said = config.training.system_prompt
    return f"{said}\n\n{CHANGES_IN_EDITS}" if said else ""


def kind_weights(config: RLLMConfig) -> dict[str, float]:
    """What a solution of each kind of issue counts for when it is shown."""
    reward = config.reward
    both = dict.fromkeys(("bug", "general"), reward.bug_fix_weight)
    return {**both, "feature": reward.feature_weight, "documentation": reward.documentation_weight}


def write_recipe(
    folder: Path,
    base: Base,
    config: RLLMConfig,
    material: Material,
    *,
    half_precision: bool,
    trackers: Sequence[Mapping[str, Any]] = (),
    name: str | None = None,
    checkpoint_epochs: int | None = None,
    distributed: bool = False,
    overrides: Sequence[str] = (),
) -> tuple[Path, Pipeline]:
    """The recipe, resolved, in ``folder``; ``half_precision``: whether the device computes in it.

    ``distributed``: whether it is computed by ranks on Ray.

    ``trackers`` stand in each stage, where anything was said of whom to report to.

    Raises:
        ConfigError: a setting cannot be what it is, by the line of the recipe or by the override.
    """
    said = config.model_dump(exclude_unset=not base.whole)
    stages = [
        _learning(laid_over(stage, asked(stage, said, half_precision=half_precision)), material, base.system, said)
        for stage in base.tree["stages"]
        if stage["type"] != "rl" or material.problems is not None
    ]
    if "report_to" in said.get("training", {}):
        stages = [{**stage, "trackers": list(trackers)} for stage in stages]
    if distributed:
        stages = [{**stage, "engine": {**stage.get("engine", {}), **_ranks(config)}} for stage in stages]
    path = folder / NAME
    named = {"name": name} if name is not None else {}
    write_atomically(path, written({**base.tree, **named, "stages": stages}))
    passes = said.get("training", {}).get("num_train_epochs")
    counted = list(_counted(_pipeline(path, overrides), material, passes, checkpoint_epochs))
    resolved = _pipeline(path, [*counted, *overrides])
    write_atomically(path, dump(resolved))
    return path, resolved


def _ranks(config: RLLMConfig) -> dict[str, Any]:
    """One for each device, for a rank computes on one; a worker without a GPU is one rank."""
    asked, usual = config.distributed, RLLMDistributedConfig()
    for name, why in FIXED.items():
        if getattr(asked, name) != getattr(usual, name):
            raise ConfigError(f"distributed.{name} is {getattr(asked, name)}, and {why}: leave it out")
    return {"type": "ray", "workers": asked.num_workers * max(1, asked.gpus_per_worker)}


def _pipeline(path: Path, overrides: Sequence[str]) -> Pipeline:
    loaded = load(path, overrides)
    if not isinstance(loaded, Pipeline):
        raise ConfigError(f"{path} is a single run of type {loaded.type}: leave its type as it is")
    return loaded


def _counted(
    pipeline: Pipeline, material: Material, passes: int | None, checkpoint_epochs: int | None
) -> Iterator[str]:
    """Passes over the data in steps, stage by stage."""
    for at, stage in enumerate(pipeline.stages):
        if isinstance(stage, SFTRun):
            steps = math.ceil(material.count / stage.batch_size)
        elif isinstance(stage, RLRun) and material.problems is not None:
            steps = math.ceil(material.problems.count / stage.groups_per_step)
        else:
            continue
        if passes is not None:
            yield f"stages.{at}.steps={passes * steps}"
        if checkpoint_epochs is not None:
            yield f"stages.{at}.checkpoints.every={checkpoint_epochs * steps}"


def _learning(stage: Tree, material: Material, system: str, said: Tree) -> Tree:
    """The stage, with data or problems in their places."""
    if stage["type"] == "sft":
        kind = "episodes" if material.weighted else "conversations"
        files = {"path": str(material.path.resolve()), "heldout_path": str(material.heldout_path.resolve())}
        data = {"type": kind, **files, "heldout": material.heldout}
        return {**stage, "data": data, "weighting": {"kind": "reward"} if material.weighted else None}
    if material.problems is None:
        return stage
    problems = material.problems
    where = {
        "path": str(problems.path.resolve()),
        "heldout_path": str(problems.heldout_path.resolve()),
        "repository": str(problems.repository),
        "heldout": problems.heldout,
        "system": system or None,
        "numbered": material.numbered,
    }
    given = rewards(said.get("reward", {}))
    environments = [laid_over({**each, **where}, given) for each in stage["environments"]]
    learning = {**stage, "environments": environments}
    put(learning, "evaluation.tasks", problems.heldout)
    return learning
