"""The composition root of recipes: checked, given a folder, carried out stage by stage."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fettle.cli.engines import capabilities, check_for_service, check_gpus, check_players
from fettle.cli.exits import INTERRUPTED
from fettle.cli.models import check_kind, policy_rows, stages_of, weights_of
from fettle.cli.sources import Prompt
from fettle.cli.stages import run_stage
from fettle.cli.waking import woken
from fettle.client.kept import kept
from fettle.config import (
    EngineConfig,
    LaunchedEngine,
    LocalEngine,
    Pipeline,
    PolicySpec,
    RayEngine,
    RewardModelRun,
    RLRun,
    RunConfig,
    ServiceEngine,
    StageConfig,
    TorchEngine,
    WorkedDebates,
    WorkedPairs,
    WorkedSums,
    models_of,
    with_models,
)
from fettle.config.devices import narrow
from fettle.config.load import dump
from fettle.config.runs import names_stage, takes
from fettle.engine import Capabilities
from fettle.engine.local.checkpoint import MANIFEST, digest, verify
from fettle.environments import suite
from fettle.errors import ConfigError, DataError
from fettle.tracking import (
    RunFolder,
    write_stages_report,
)
from fettle.training import Callback, Summary, pipeline
from fettle.training.notes import absent_files
from fettle.training.plan import plans
from fettle.training.standings import stage_standings

SHOW_CURSOR = b"\x1b[?25h\n"


def new_folder(root: Path, config: RunConfig) -> RunFolder:
    """A folder for a new run that this machine can carry out, with its recipe in it."""
    choose_gpus(config)
    config = settled(config)
    check(config)
    folder = RunFolder.create(root, config.name)
    folder.write_config(dump(config))
    return folder


async def run(
    config: RunConfig, folder: RunFolder, *, callbacks: Sequence[Callback] = (), begun: bool = False
) -> list[Summary]:
    """Carry out a recipe in its folder, from wherever it stands; a summary for each stage.

    ``callbacks`` are told of every step and evaluation of every stage. What has ``begun`` before, as a run that is
    resumed, goes on without a tracker that cannot be opened, and so does every stage after the first.
    """
    choose_gpus(config)
    config = settled(config)
    check(config)
    stop, heldout, first = asyncio.Event(), _heldout(config), stages_of(config)[0].name

    def carried_out(stage: StageConfig, place: RunFolder) -> "asyncio.Future[Summary]":
        later = begun or stage.name != first
        return asyncio.ensure_future(run_stage(stage, place, stop, heldout, callbacks, begun=later))

    with _interruptible(stop):
        if not isinstance(config, Pipeline):
            return [await carried_out(config, folder)]

        def in_its_folder(stage: StageConfig) -> "asyncio.Future[Summary]":
            return carried_out(stage, RunFolder(folder.path / stage.name))

        ends = await pipeline.train(config, folder.path, in_its_folder, pipeline.Chain(folder.path, _verified))
        interrupted = ends[-1].summary.interrupted
        rows = {} if interrupted else await policy_rows(ends)
        write_stages_report(folder, list(stage_standings(ends, rows)), interrupted=interrupted)
        return [end.summary for end in ends]


def _verified(weights: str) -> str | None:
    """The digest of a checkpoint, every file of which is what was saved; None for a model from elsewhere.

    Of one at a service its note is here, and the service verifies the files when they are read.

    Raises:
        CheckpointError: a file is not.
    """
    folder, note = Path(weights), kept(weights)
    if note is not None:
        return note.digest
    if not (folder / MANIFEST).is_file():
        return None
    verify(folder)
    return digest(folder)


def check(config: RunConfig) -> None:
    """Plan a run before anything is made for it.

    Raises:
        ConfigError: a setting has no consumer, or this machine cannot do what one asks.
        DataError: there is no such data file.
        ModelError: a reward model is named where a policy is needed, or the reverse.
    """
    for (name, _), stage in zip(plans(config, _of_engine), stages_of(config), strict=True):
        if isinstance(stage.engine, ServiceEngine):
            check_for_service(name, stage)
        elif isinstance(stage.engine, RayEngine | LaunchedEngine) and stage.profile:
            here = f"profile looks into the engine of this process, and engine.type is {stage.engine.type}"
            raise ConfigError(f"{name}: {here}: unset it")
        elif isinstance(stage.engine, LocalEngine) and not capabilities(stage.engine).memory_bytes:
            raise ConfigError(f"{name} asks for engine.device {stage.engine.device}, and torch sees none here: use cpu")
        check_players(stage)
        for key, path in absent_files(stage):
            raise DataError(f"{name}: {key} is {path}, and there is no such file: write it, or correct the path")
        for key, model in models_of(stage):
            kinds = takes(stage, key)
            if len(kinds) == 1 or RewardModelRun not in kinds:
                check_kind(model, scores=RewardModelRun in kinds, place=f"{name}: {key}")


def choose_gpus(config: RunConfig) -> None:
    """See to it that this process sees the GPUs of its recipe, and no other.

    Raises:
        ConfigError: one is not here, or stages are to be on different ones.
    """
    engines = [stage.engine for stage in stages_of(config) if isinstance(stage.engine, TorchEngine)]
    narrow(engines)
    for engine in engines:
        check_gpus(engine)


def _of_engine(engine: EngineConfig, _: PolicySpec) -> Capabilities:
    """What the engine can do; how it would run the policy is told once it is loaded."""
    return capabilities(engine)


def settled(config: RunConfig) -> RunConfig:
    """The recipe with a checkpoint in the place of each run folder that it starts from.

    Raises:
        ConfigError: a single run names a stage.
    """
    if isinstance(config, Pipeline):
        return config.model_copy(update={"stages": tuple(_settled(stage) for stage in config.stages)})
    for key, named in models_of(config):
        if names_stage(named):
            raise ConfigError(
                f"{key} is {named}, which names a stage only within a pipeline: name a run folder or a model instead"
            )
    return _settled(config)


def _settled(stage: StageConfig) -> StageConfig:
    return with_models(stage, lambda named: named if names_stage(named) else weights_of(named))


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
        with woken(asyncio.get_running_loop()):
            yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _heldout(config: RunConfig) -> frozenset[Prompt]:
    """The prompts that some stage of a recipe scores on."""
    stages = stages_of(config)
    sources = [source for stage in stages if isinstance(stage, RLRun) for source in stage.environments]
    data = [stage.data for stage in stages if not isinstance(stage, RLRun)]
    shown = [each.tasks for each in data if isinstance(each, WorkedSums | WorkedPairs | WorkedDebates)]
    return frozenset(task.prompt for source in [*sources, *shown] for task in suite(source).heldout_tasks())
