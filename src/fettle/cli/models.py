"""Finished models put to use: which checkpoint a run folder stands for, its score on held-out tasks, its replies."""

from pathlib import Path

from fettle.chat import Template, load_tokenizer
from fettle.cli.stages import engine_of
from fettle.config import (
    LocalEngine,
    Pipeline,
    RLRun,
    RunConfig,
    SamplingParams,
    StageConfig,
)
from fettle.config.load import load
from fettle.environments import suite
from fettle.tracking import (
    RunFolder,
)
from fettle.training import Evaluation, Session, evaluate
from fettle.types import Message


def stages_of(config: RunConfig) -> tuple[StageConfig, ...]:
    """The runs of a recipe."""
    return config.stages if isinstance(config, Pipeline) else (config,)


async def evaluation(config: RLRun, weights: str) -> Evaluation:
    """The held-out tasks of a recipe, put to a model or a checkpoint."""
    suites = [suite(environment) for environment in config.environments]
    template = Template(load_tokenizer(weights))
    params = SamplingParams(
        max_tokens=config.sampling.max_tokens,
        temperature=config.evaluation.temperature,
        stop=config.sampling.stop,
        stop_token_ids=tuple(sorted(template.end_token_ids)),
    )
    with engine_of(config.engine, Path()) as engine:
        return await evaluate(
            suites,
            tasks=config.evaluation.tasks,
            sampler=await engine.sampler(weights),
            template=template,
            params=params,
            seed=config.seed,
            samples=config.evaluation.samples,
        )


async def replies(weights: str, prompt: str, *, system: str | None, n: int, params: SamplingParams) -> list[str]:
    """What a model says to one prompt, ``n`` times."""
    template = Template(load_tokenizer(weights))
    said = [*([Message("system", system)] if system else []), Message("user", prompt)]
    drawing = params.model_copy(update={"stop_token_ids": tuple(sorted(template.end_token_ids))})
    with engine_of(LocalEngine(), Path()) as engine:
        sampler = await engine.sampler(weights)
        drawn = await sampler.sample(template.prompt(said), n, drawing)
    return [template.reply(completion.tokens).content for completion in drawn]


def weights_of(model: str) -> str:
    """The best checkpoint of a run folder, or of the last stage of a pipeline's; anything else is a model itself."""
    folder = Path(model)
    if not (folder / "config.yaml").is_file():
        return model
    config = load(folder / "config.yaml")
    if isinstance(config, Pipeline):
        folder = folder / stages_of(config)[-1].name
    return Session.best_checkpoint(RunFolder.open(folder))


def system_of(model: str) -> str | None:
    """The system message that a run was trained with."""
    path = Path(model) / "config.yaml"
    if not path.is_file():
        return None
    last = stages_of(load(path))[-1]
    return last.environments[0].system if isinstance(last, RLRun) else None
