"""Finished models put to use: which checkpoint a run folder stands for, its score on held-out tasks, its replies."""

from collections.abc import Sequence
from pathlib import Path

from fettle.chat import Template, load_tokenizer
from fettle.cli.engines import engine_of, tokenizer_of
from fettle.client.kept import kept
from fettle.config import (
    Dialogue,
    EngineConfig,
    LocalEngine,
    Pipeline,
    RLRun,
    RunConfig,
    SamplingParams,
    StageConfig,
)
from fettle.config.load import load
from fettle.engine.local.copied import STATE
from fettle.environments import suite
from fettle.errors import ModelError
from fettle.tracking import RunFolder
from fettle.tracking.folder import read_object
from fettle.training import Session
from fettle.training.pipeline import StageEnd, started_from
from fettle.training.standings import measuring_run, policies_of, standings
from fettle.types import Message

RUNS = Path("runs")
"""Where run folders are made, unless told otherwise."""


def stages_of(config: RunConfig) -> tuple[StageConfig, ...]:
    """The runs of a recipe."""
    return config.stages if isinstance(config, Pipeline) else (config,)


async def policy_rows(ends: Sequence[StageEnd]) -> dict[str, dict[str, float]]:
    """The policies of a pipeline, put to the same held-out tasks; nothing where no stage has tasks."""
    run = measuring_run(ends)
    if run is None:
        return {}
    suites = [suite(environment) for environment in run.environments]
    async with engine_of(run.engine, Path()) as engine:
        return await standings(
            run,
            policies_of(ends),
            engine=engine,
            suites=suites,
            template_of=lambda weights: Template(load_tokenizer(tokenizer_of(run.engine, weights))),
        )


async def replies(weights: str, prompt: str, *, system: str | None, n: int, params: SamplingParams) -> list[str]:
    """What a model says to one prompt, ``n`` times."""
    check_kind(weights, scores=False)
    settings = _engine_that_keeps(weights)
    template = Template(load_tokenizer(tokenizer_of(settings, weights)))
    said = [*([Message("system", system)] if system else []), Message("user", prompt)]
    drawing = params.model_copy(update={"stop_token_ids": tuple(sorted(template.end_token_ids))})
    async with engine_of(settings, Path()) as engine:
        sampler = await engine.sampler(weights)
        drawn = await sampler.sample(template.prompt(said), n, drawing)
    return [template.reply(completion.tokens).content for completion in drawn]


def _engine_that_keeps(weights: str) -> EngineConfig:
    """The service that keeps a checkpoint, as its run's recipe names it; the engine here for all else."""
    if kept(weights) is None:
        return LocalEngine()
    config = load(RunFolder(Path(weights).parents[1]).config_path)
    return stages_of(config)[-1].engine


def weights_of(model: str) -> str:
    """The best checkpoint of a run, or of the last stage of a pipeline; anything else is a model itself.

    A run is named by its folder, or, where that lies in ``runs``, by the folder's name.
    """
    folder = _run_folder(model)
    if folder is None:
        return model
    config = load(folder / "config.yaml")
    if isinstance(config, Pipeline):
        folder = folder / stages_of(config)[-1].name
    return Session.best_checkpoint(RunFolder.open(folder))


def start_of(model: str) -> str | None:
    """What the last stage of a pipeline started from, by the pipeline's folder; None for anything else."""
    folder = _run_folder(model)
    if folder is None:
        return None
    config = load(folder / "config.yaml")
    return started_from(folder, stages_of(config)[-1].name) if isinstance(config, Pipeline) else None


def _run_folder(model: str) -> Path | None:
    return next((path for path in (Path(model), RUNS / model) if (path / "config.yaml").is_file()), None)


def check_kind(weights: str, *, scores: bool, place: str = "the model") -> None:
    """Refuses a checkpoint of a reward model where a policy is needed, and the reverse where ``scores`` are.

    Raises:
        ModelError: it is the other one.
    """
    spec = read_object(Path(weights) / STATE).get("spec")
    if not isinstance(spec, dict) or (spec.get("head") == "reward") == scores:
        return  # a model from elsewhere, or the one that is needed
    if scores:
        raise ModelError(f"{place} is {weights}, which gives no scores: name a run of type reward_model")
    raise ModelError(f"{place} is {weights}, a reward model, which scores replies and writes none: name a policy")


def system_of(model: str) -> str | None:
    """The system message that a run was trained with."""
    path = Path(model) / "config.yaml"
    if not path.is_file():
        return None
    last = stages_of(load(path))[-1]
    first = last.environments[0] if isinstance(last, RLRun) else None
    return None if first is None or isinstance(first, Dialogue) else first.system
