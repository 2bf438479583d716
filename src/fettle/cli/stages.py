"""One run in one folder: data and suites, model and engine, session and loop put together, by kind of run."""

import asyncio
import itertools
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError

from fettle.broker import Broker
from fettle.chat import Template, check_same_tokenizer, load_tokenizer
from fettle.cli.engines import engine_of, played_at, threads_of, tokenizer_of
from fettle.cli.invoked import FETTLE
from fettle.cli.profiler import StepProfiler, middle_step
from fettle.cli.sources import Prompt, comparisons_of, conversations_of, episodes_of, files_of
from fettle.cli.trackers import outlets
from fettle.client import HTTPEngine
from fettle.config import (
    Episodes,
    PolicySpec,
    PreferenceRun,
    RewardModelRun,
    RLRun,
    ServiceEngine,
    SFTRun,
    StageConfig,
    TinyModel,
    models_of,
)
from fettle.config.load import dump
from fettle.data import Preference, Rating
from fettle.engine import Engine
from fettle.engine.local import make_tiny_model, text_of
from fettle.environments import GameSuite, Suite, sheltered, suite
from fettle.errors import StorageError
from fettle.tracking import (
    HACKING,
    ConsoleTracker,
    FileTracker,
    RunFolder,
    Tracker,
    read_metrics,
    tee,
    write_profile,
    write_report,
)
from fettle.tracking.sinks import Sink
from fettle.training import Callback, Session, Summary, preference, rl, sft

TEXTS_FOR_TOKENIZER = 2000
"""Texts that a tiny model's tokenizer is fitted to."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens, and what it must keep clear of."""

    files: FileTracker
    folder: RunFolder
    stop: asyncio.Event
    heldout: Collection[Prompt]
    callbacks: Sequence[Callback]
    profiler: StepProfiler | None
    trackers: Sequence[Sink]


async def run_stage(
    config: StageConfig,
    folder: RunFolder,
    stop: asyncio.Event,
    heldout: Collection[Prompt],
    callbacks: Sequence[Callback] = (),
    *,
    begun: bool = False,
) -> Summary:
    """One run in one folder. Nothing in ``heldout`` is ever trained on.

    ``begun`` says that work was done before that a tracker must not stop: it goes on without one that is away.
    """
    folder = RunFolder.at(folder.path)
    with closing(FileTracker(folder)) as files:  # from here on the folder is ours alone
        folder.write_config(dump(config))
        threads = threads_of(config.engine)
        folder.write_provenance(sys.argv, threads=threads, data=files_of(config))
        every = config.evaluation.every
        profiler = StepProfiler(middle_step(config.steps, evaluated_every=every)) if config.profile else None
        heard = callbacks if profiler is None else (*callbacks, profiler)
        with outlets(config, folder, begun=begun) as told:
            place = Place(files, folder, stop, heldout, heard, profiler, told.sinks)
            summary = await KINDS[type(config)](config, place)
            _draw(folder, summary, profiler)
            write_report(folder, summary, command=FETTLE)
            told.keep(summary)
    return summary


def _draw(folder: RunFolder, summary: Summary, profiler: StepProfiler | None) -> None:
    from fettle.tracking.plots import draw_curves, draw_profile  # only now: matplotlib is slow to import

    rows = read_metrics(folder.metrics_path)
    draw_curves(rows, folder.curves_path)
    if profiler is not None:
        write_profile(folder, seconds=summary.seconds, step=profiler.step, operators=profiler.operators)
        slowed = {profiler.step} if profiler.operators else set()
        draw_profile([row for row in rows if row["step"] not in slowed], folder.profile_chart_path)


def materialized(config: StageConfig, folder: RunFolder, texts: Iterable[str]) -> PolicySpec:
    """The spec with a folder in the place of a tiny model's description; a service's models have its own names.

    Folders are given whole: adapters name their base by it, and must find it from any working directory.
    """
    spec = config.policy
    if isinstance(config.engine, ServiceEngine):
        return spec
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


async def _reinforced(config: RLRun, place: Place) -> Summary:
    half = config.evaluation.half
    suites = [sheltered(suite(environment), place.heldout, half) for environment in config.environments]
    rehearsed = conversations_of(config.rehearsal.data, place.heldout)[0] if config.rehearsal is not None else ()
    shown = (text_of(message) for conversation in rehearsed for message in conversation)
    texts = itertools.chain(shown, _prompts(suites))
    config = config.model_copy(update={"policy": materialized(config, place.folder, texts)})
    template = _template(config)
    for companion in _companions(config):
        _check_same_tokenizer(config, companion)
    async with _parts(config, place) as (session, engine):
        stops = config.reward_model is not None and config.reward_model.monitor.stop
        evaluation, alarm = config.evaluation, HACKING if stops else None
        session.stop_when(patience=evaluation.patience, target=evaluation.target, alarm=alarm)
        with played_at(config.environment_workers, config.environments, suites) as played:
            return await rl.train(
                config,
                engine=engine,
                suites=played,
                template=template,
                session=session,
                rehearsed=rehearsed,
                templates=_templates_of_players(config),
            )


async def _supervised(config: SFTRun, place: Place) -> Summary:
    training, scored = conversations_of(config.data, place.heldout, config.evaluation.half)
    texts = (text_of(message) for conversation in training for message in conversation)
    config = config.model_copy(update={"policy": materialized(config, place.folder, texts)})
    template = _template(config)
    async with _parts(config, place) as (session, engine):
        session.stop_when(patience=config.evaluation.patience, lower_is_better=True)
        return await sft.train(
            config,
            engine=engine,
            conversations=training,
            heldout=scored,
            template=template,
            session=session,
            rewards=_rewards(config),
        )


async def _compared(config: PreferenceRun | RewardModelRun, place: Place) -> Summary:
    training, scored = comparisons_of(config.data, place.heldout, config.evaluation.half)
    config = config.model_copy(update={"policy": materialized(config, place.folder, _texts(training))})
    template = _template(config)
    if isinstance(config, PreferenceRun) and config.reference is not None:
        _check_same_tokenizer(config, config.reference)
    async with _parts(config, place) as (session, engine):
        session.stop_when(patience=config.evaluation.patience, target=config.evaluation.target)
        return await preference.train(
            config, engine=engine, examples=training, heldout=scored, template=template, session=session
        )


def _template(config: StageConfig) -> Template:
    return Template(load_tokenizer(tokenizer_of(config.engine, str(config.policy.model))))


def _templates_of_players(config: RLRun) -> dict[str, Template]:
    """Of the models that players name: each speaks by its own."""
    named = {model for key, model in models_of(config) if key.startswith("players.")}
    return {model: Template(load_tokenizer(tokenizer_of(config.engine, model))) for model in sorted(named)}


def _check_same_tokenizer(config: StageConfig, companion: str) -> None:
    ours, theirs = (tokenizer_of(config.engine, model) for model in (str(config.policy.model), companion))
    check_same_tokenizer(ours, theirs)


def _rewards(config: SFTRun) -> list[float] | None:
    """What each conversation earned, where that is what it weighs."""
    if config.weighting is None or not isinstance(config.data, Episodes):
        return None
    return [episode.reward for episode in episodes_of(config.data)[0]]


def _texts(examples: Iterable[Preference | Rating]) -> Iterator[str]:
    for example in examples:
        yield from (message.content for message in example.prompt)
        yield from (example.completion,) if isinstance(example, Rating) else (example.chosen, example.rejected)


def _companions(config: RLRun) -> Iterator[str]:
    """Models that read what the policy wrote, token by token."""
    if config.reference is not None:
        yield config.reference
    if config.critic is not None and config.critic.model is not None:
        yield config.critic.model
    if config.teacher is not None:
        yield config.teacher.model
    if config.reward_model is not None:
        yield config.reward_model.model


@asynccontextmanager
async def _parts(config: StageConfig, place: Place) -> AsyncIterator[tuple[Session, Engine]]:
    """What a loop runs with, ended with the block."""
    async with engine_of(config.engine, place.folder.checkpoints, name=config.name) as engine:
        told = [engine.tracker()] if isinstance(engine, HTTPEngine) else []
        with _session(config, place, told) as session:
            async with AsyncExitStack() as around:
                if place.profiler is not None and isinstance(engine, Broker):
                    await around.enter_async_context(place.profiler.of(engine))
                await around.enter_async_context(session.seen_through())
                yield session, engine


@contextmanager
def _session(config: StageConfig, place: Place, told: Sequence[Tracker]) -> Iterator[Session]:
    console, files, folder = ConsoleTracker(), place.files, place.folder
    trackers = tee([files, console, *told, *place.trackers])
    session = Session(
        folder, trackers, checkpoints=config.checkpoints, steps=config.steps, stop=place.stop, callbacks=place.callbacks
    )
    # Rows beyond the newest checkpoint are of steps that will be done again.
    files.truncate(session.progress.step if session.progress.checkpoint else -1)
    before = read_metrics(folder.metrics_path)
    for sink in place.trackers if before else ():
        sink.catch_up(before)
    console.start(config.steps, f"{config.name} in {folder.path}", done=session.progress.step)
    try:
        yield session
    finally:
        console.close()


def _prompts(suites: Sequence[Suite | GameSuite]) -> Iterator[str]:
    for index in itertools.count():
        for each in suites:
            yield from (message.content for message in each.training_task(index).prompt)


KINDS: Mapping[type[StageConfig], Callable[[Any, Place], Awaitable[Summary]]] = MappingProxyType(
    {SFTRun: _supervised, PreferenceRun: _compared, RewardModelRun: _compared, RLRun: _reinforced}
)
"""What carries out each kind of run."""
