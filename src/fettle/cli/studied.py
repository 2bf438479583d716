"""The composition root of studies: a recipe and a study put together, their trials run here or by other processes."""

import asyncio
import functools
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from fettle.cli import build
from fettle.cli.crews import Team
from fettle.cli.models import stages_of
from fettle.cli.parents import adopted, told_the_end
from fettle.config import RunConfig
from fettle.config.load import dump, load, load_as
from fettle.config.study import Study
from fettle.errors import ConfigError, FettleError, StateError
from fettle.tracking import write_atomically
from fettle.tuning import (
    ARM,
    BEST,
    SEED,
    Candidate,
    Desk,
    Outcome,
    Standing,
    StudyFolder,
    Trials,
    Watch,
    check_space,
    line_of,
    overrides,
    scored_on,
    seeded,
    standing,
    work,
    write_standing,
)

POLL_S = 0.5
SEARCH = "trials"
"""The phase that looks for better settings; the other one compares them with the recipe's own."""
STOPS = (signal.SIGINT, signal.SIGTERM)

Told = Callable[[FrozenTrial], None]
"""Says how a trial ended."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """A study that is worked on from here."""

    desk: Desk
    recipe: RunConfig

    @classmethod
    def begun(cls, root: Path, recipe: Path, changed: Sequence[str], study: Path) -> "Tuning":
        """A new study in a new folder, of which nothing is left where its tracker cannot be opened.

        Raises:
            ConfigError: something is wrong with the recipe, the study, or what it asks of the recipe.
            StorageError: the folder, the storage or a tracker cannot be used.
        """
        settings = load_as(Study, study)
        config = build.settled(load(recipe, changed))
        check_space(settings, lambda more: load(recipe, [*changed, *more]))
        build.check(config)
        if any(stage.evaluation.half is not None for stage in stages_of(config)):
            raise ConfigError(
                "evaluation.half of the recipe is set, and a study sets it for each of its runs: leave it out"
            )
        folder = StudyFolder.create(root, settings.name, recipe=dump(config), study=dump(settings))
        try:
            nested = adopted(config, settings, folder)
        except (FettleError, OSError):
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        if nested:
            write_atomically(folder.recipe_path, dump(load(folder.recipe_path, nested)))
        return cls.at(folder)

    @classmethod
    def at(cls, folder: StudyFolder) -> "Tuning":
        """The study that is in a folder."""
        recipe = load(folder.recipe_path)
        desk = Desk.at(folder, load_as(Study, folder.study_path), steps=stages_of(recipe)[-1].steps)
        return cls(desk, recipe)

    @property
    def folder(self) -> StudyFolder:
        """Where it is."""
        return self.desk.folder

    def trials(self, phase: str, owner: str = "") -> Trials:
        """Those of a phase.

        Raises:
            StateError: no trial of the search has come to a score.
        """
        search = self.desk.search(owner)
        return search if phase == SEARCH else self.desk.finals(self._best(search), owner)

    def work(self, phase: str, told: Told) -> bool:
        """Run trials in this process until there are none left; False where one was interrupted."""
        with self.folder.worker() as owner:
            return work(self.trials(phase, owner), functools.partial(self._run, phase), told)

    def share(self, phase: str, team: Team, told: Told) -> bool:
        """Have others run them; False where one was interrupted. A signal to stop is passed on to them.

        Raises:
            StateError: they ended before the trials did.
        """
        trials, seen = self.trials(phase), set[int]()
        seen |= {trial.number for trial in trials.all() if trial.state.is_finished()}
        with _asked() as asked, team.crew(phase) as crew:
            while crew.at_work():
                _tell_new(trials, seen, told)
                for _ in range(len(asked)):
                    asked.pop()
                    crew.stop()
                time.sleep(POLL_S)
        _tell_new(trials, seen, told)
        if crew.interrupted():
            return False
        if not trials.is_over():
            raise StateError(crew.undone())
        return True

    def end(self, found: Standing) -> None:
        """Tell whoever was told that it began; one that is away is told of in the log."""
        told_the_end(self.recipe, self.desk.study, self.folder, found)

    def standing(self) -> Standing:
        """How it stands now, which is written down too."""
        from fettle.tuning.plots import draw_standing  # only now: matplotlib is slow to import

        search = self.desk.search("")
        best = search.best()
        finals = self.desk.finals(best, "").all() if best is not None and search.is_over() else []
        found = standing(self.desk.study, search.all(), best, finals)
        write_standing(self.folder, self.desk.study, found)
        draw_standing(self.folder, self.desk.study, found)
        return found

    def _best(self, search: Trials) -> FrozenTrial:
        best = search.best()
        if best is not None:
            return best
        faults = [line.fault for line in map(line_of, search.all()) if line.fault]
        why = f"the last to fail: {faults[-1]}" if faults else "all were ended early: see pruning"
        raise StateError(f"no trial of the study in {self.folder.path} has come to a score; {why}")

    def _run(self, phase: str, candidate: Candidate) -> Outcome:
        """A trial, from its settings to its score."""
        config = load(self.folder.recipe_path, self._changes(phase, candidate))
        folder = build.new_folder(self.folder.trials if phase == SEARCH else self.folder.finals, config)
        candidate.placed(folder.path.name)
        stages, metric = stages_of(config), self.desk.study.metric
        watch = Watch(metric, candidate, stages=len(stages), steps=stages[-1].steps)
        last = asyncio.run(build.run(config, folder, callbacks=[watch], begun=True))[-1]
        if watch.missing:
            return Outcome(fault=watch.missing, hopeless=True)
        if watch.pruned:
            return Outcome(pruned=True)
        if last.interrupted:
            return Outcome()
        value = last.last[metric]
        return Outcome(fault=f"its {metric} is not a number") if math.isnan(value) else Outcome(value=value)

    def _changes(self, phase: str, candidate: Candidate) -> list[str]:
        """Laid over the recipe, they make it the trial's."""
        if phase == SEARCH:
            seen = scored_on(self.recipe, "first")
            return [f"name=trial-{candidate.number:04d}", *seen, *overrides(candidate.parameters)]
        arm, seed = str(candidate.parameters[ARM]), int(str(candidate.parameters[SEED]))
        best = overrides(self._best(self.desk.search("")).params) if arm == BEST else []
        unseen = scored_on(self.recipe, "second")
        return [f"name={arm}-seed-{seed}", *unseen, *best, *seeded(self.recipe, seed)]


def _tell_new(trials: Trials, seen: set[int], told: Told) -> None:
    for trial in trials.all():
        if trial.state.is_finished() and trial.number not in seen:
            seen.add(trial.number)
            told(trial)


@contextmanager
def _asked() -> Iterator[list[int]]:
    """The signals that ask this process to stop, as they come, rather than that they end it."""
    came: list[int] = []
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in STOPS}
    try:
        yield came
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
