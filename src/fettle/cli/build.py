"""The composition root: the one place that puts recipes, engines, suites, folders and trackers together."""

import asyncio
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.cli.exits import INTERRUPTED
from fettle.config import (
    JSONL,
    Conversations,
    DemonstrationsConfig,
    LocalEngine,
    Pipeline,
    PolicySpec,
    RLRun,
    RunConfig,
    SamplingParams,
    SFTRun,
    TinyModel,
    WorkedSums,
)
from fettle.config.load import dump, load
from fettle.data import Conversation, conversations, demonstrations, split
from fettle.engine.local import LocalBackend, capabilities, make_tiny_model
from fettle.environments import Sheltered, Suite, suite
from fettle.errors import ConfigError, StorageError
from fettle.tracking import (
    ConsoleTracker,
    FileTracker,
    RunFolder,
    read_metrics,
    tee,
    write_report,
    write_stages_report,
)
from fettle.tracking.plots import draw_curves
from fettle.training import Evaluation, Session, Summary, evaluate, pipeline, rl, sft
from fettle.training.plan import plans
from fettle.types import Message

Prompt = tuple[Message, ...]

TEXTS_FOR_TOKENIZER = 2000
"""Texts that a tiny model's tokenizer is fitted to."""

SHOW_CURSOR = b"\x1b[?25h\n"


def new_folder(root: Path, config: RunConfig) -> RunFolder:
    """A folder for a new run that this machine can carry out, with its recipe in it."""
    config = settled(config)
    check(config)
    folder = RunFolder.create(root, config.name)
    folder.write_config(dump(config))
    return folder


async def run(config: RunConfig, folder: RunFolder) -> list[Summary]:
    """Carry out a recipe in its folder, from wherever it stands; a summary for each stage."""
    config = settled(config)
    check(config)
    stop, heldout = asyncio.Event(), _heldout(config)
    with _interruptible(stop):
        if not isinstance(config, Pipeline):
            return [await run_stage(config, folder, stop, heldout)]

        def in_its_folder(stage: RLRun | SFTRun) -> "asyncio.Future[Summary]":
            return asyncio.ensure_future(run_stage(stage, RunFolder(folder.path / stage.name), stop, heldout))

        summaries = await pipeline.train(config, in_its_folder)
        write_stages_report(folder, summaries)
        return summaries


def check(config: RunConfig) -> None:
    """Plan a run before anything is made for it.

    Raises:
        ConfigError: a setting has no consumer, or this machine cannot do what one asks.
    """
    for (name, _), stage in zip(plans(config, capabilities), stages_of(config), strict=True):
        if not capabilities(stage.engine).memory_bytes:
            raise ConfigError(f"{name} asks for engine.device {stage.engine.device}, and torch sees none here: use cpu")


def settled(config: RunConfig) -> RunConfig:
    """The recipe with a checkpoint in the place of each run folder that it starts from."""
    if isinstance(config, Pipeline):
        return config.model_copy(update={"stages": tuple(_settled(stage) for stage in config.stages)})
    return _settled(config)


def _settled(stage: RLRun | SFTRun) -> RLRun | SFTRun:
    if isinstance(stage.policy.model, TinyModel):
        return stage
    policy = stage.policy.model_copy(update={"model": weights_of(stage.policy.model)})
    return stage.model_copy(update={"policy": policy})


def stages_of(config: RunConfig) -> tuple[RLRun | SFTRun, ...]:
    """The runs of a recipe."""
    return config.stages if isinstance(config, Pipeline) else (config,)


async def run_stage(
    config: RLRun | SFTRun, folder: RunFolder, stop: asyncio.Event, heldout: Collection[Prompt]
) -> Summary:
    """One run in one folder. Nothing in ``heldout`` is ever trained on."""
    folder = RunFolder.at(folder.path)
    with closing(FileTracker(folder)) as files:  # from here on the folder is ours alone
        folder.write_config(dump(config))
        folder.write_provenance(sys.argv, threads=config.engine.threads or torch.get_num_threads(), data=_files(config))
        if isinstance(config, RLRun):
            summary = await _reinforced(config, files, folder, stop, heldout)
        else:
            summary = await _supervised(config, files, folder, stop, heldout)
        draw_curves(read_metrics(folder.metrics_path), folder.curves_path)
        write_report(folder, summary)
    return summary


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
    with _engine(config.engine, Path()) as engine:
        return await evaluate(
            suites,
            tasks=config.evaluation.tasks,
            sampler=await engine.sampler(weights),
            template=template,
            params=params,
            seed=config.seed,
        )


async def replies(weights: str, prompt: str, *, system: str | None, n: int, params: SamplingParams) -> list[str]:
    """What a model says to one prompt, ``n`` times."""
    template = Template(load_tokenizer(weights))
    said = [*([Message("system", system)] if system else []), Message("user", prompt)]
    drawing = params.model_copy(update={"stop_token_ids": tuple(sorted(template.end_token_ids))})
    with _engine(LocalEngine(), Path()) as engine:
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


def conversations_of(
    data: DemonstrationsConfig, heldout: Collection[Prompt]
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """What to learn from, and what to be scored on."""
    if isinstance(data, Conversations):
        return split(conversations(data.path), heldout=data.heldout, seed=data.seed)
    source = Sheltered(suite(data.tasks), heldout)
    training = (source.training_task(index) for index in range(data.size))
    return (
        list(demonstrations(training, slips=data.slips, seed=data.seed)),
        list(demonstrations(source.heldout_tasks(), slips=0.0, seed=data.seed)),
    )


def materialized(spec: PolicySpec, folder: RunFolder, texts: Iterable[str]) -> PolicySpec:
    """The spec with a folder in the place of a tiny model's description.

    Folders are given whole: adapters name their base by it, and must find it from any working directory.
    """
    if isinstance(spec.model, TinyModel):
        model, scratch = folder.path / "model", folder.path / ".model.partial"
        if not model.is_dir():
            try:
                shutil.rmtree(scratch, ignore_errors=True)
                make_tiny_model(spec.model, scratch, texts=itertools.islice(texts, TEXTS_FOR_TOKENIZER))
                scratch.rename(model)
            except (OSError, SafetensorError) as error:
                raise StorageError(f"the model {model} could not be written ({error}): free some space") from error
    else:
        model = Path(spec.model)
    return spec.model_copy(update={"model": str(model.resolve())}) if model.is_dir() else spec


async def _reinforced(
    config: RLRun, files: FileTracker, folder: RunFolder, stop: asyncio.Event, heldout: Collection[Prompt]
) -> Summary:
    suites = [Sheltered(suite(environment), heldout) for environment in config.environments]
    config = config.model_copy(update={"policy": materialized(config.policy, folder, _prompts(suites))})
    template = Template(load_tokenizer(str(config.policy.model)))
    with _session(config, files, folder, stop) as session, _engine(config.engine, folder.checkpoints) as engine:
        session.stop_when(patience=config.evaluation.patience, target=config.evaluation.target)
        return await rl.train(config, engine=engine, suites=suites, template=template, session=session)


async def _supervised(
    config: SFTRun, files: FileTracker, folder: RunFolder, stop: asyncio.Event, heldout: Collection[Prompt]
) -> Summary:
    training, scored = conversations_of(config.data, heldout)
    texts = (message.content for conversation in training for message in conversation)
    config = config.model_copy(update={"policy": materialized(config.policy, folder, texts)})
    template = Template(load_tokenizer(str(config.policy.model)))
    with _session(config, files, folder, stop) as session, _engine(config.engine, folder.checkpoints) as engine:
        session.stop_when(patience=config.evaluation.patience, lower_is_better=True)
        return await sft.train(
            config, engine=engine, conversations=training, heldout=scored, template=template, session=session
        )


@contextmanager
def _engine(settings: LocalEngine, checkpoints: Path) -> Iterator[Broker]:
    broker = Broker(LocalBackend(settings, checkpoints=checkpoints))
    try:
        yield broker
    finally:
        broker.close()


@contextmanager
def _session(config: RLRun | SFTRun, files: FileTracker, folder: RunFolder, stop: asyncio.Event) -> Iterator[Session]:
    console = ConsoleTracker()
    session = Session(folder, tee([files, console]), checkpoints=config.checkpoints, steps=config.steps, stop=stop)
    # Rows beyond the newest checkpoint are of steps that will be done again.
    files.truncate(session.progress.step if session.progress.checkpoint else -1)
    console.start(config.steps, f"{config.name} in {folder.path}", done=session.progress.step)
    try:
        yield session
    finally:
        console.close()


@contextmanager
def _interruptible(stop: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C, or SIGTERM, asks the run to save and end; the second ends it at once, as a kill would."""

    def asked(*_: object) -> None:
        # Straight to the terminal: the handler may find the run in the middle of a print.
        if stop.is_set():
            os.write(2, SHOW_CURSOR if sys.stderr.isatty() else b"")
            os._exit(INTERRUPTED)
        stop.set()
        os.write(2, b"\nfettle: stopping after this step, with a checkpoint; Ctrl-C again ends at once\n")

    # Not the event loop's own handler, which would wait for a reward or an environment that keeps the loop busy.
    before = {each: signal.signal(each, asked) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _heldout(config: RunConfig) -> frozenset[Prompt]:
    """The prompts that some stage of a recipe scores on."""
    stages = stages_of(config)
    sources = [source for stage in stages if isinstance(stage, RLRun) for source in stage.environments]
    shown = [stage.data.tasks for stage in stages if isinstance(stage, SFTRun) and isinstance(stage.data, WorkedSums)]
    return frozenset(task.prompt for source in [*sources, *shown] for task in suite(source).heldout_tasks())


def _files(config: RLRun | SFTRun) -> list[Path]:
    """The data files that a recipe names."""
    sources = config.environments if isinstance(config, RLRun) else (config.data,)
    return [Path(source.path) for source in sources if isinstance(source, JSONL | Conversations)]


def _prompts(suites: Sequence[Suite]) -> Iterator[str]:
    for index in itertools.count():
        for each in suites:
            yield from (message.content for message in each.training_task(index).prompt)
