"""A study of a recipe: trials that look for better settings, then runs that tell whether they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from fettle.config.study import HyperbandPruning, MedianPruning, Study
from fettle.randomness import key
from fettle.tuning.folder import StudyFolder
from fettle.tuning.space import Parameters, distributions
from fettle.tuning.storage import opened, told
from fettle.tuning.trials import Plan, Trials

ARM, SEED = "settings", "seed"
BEST, RECIPE = "best", "recipe"
"""Whose settings a run has that compares them: those of the best trial, or the recipe's own."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A study, as one process has it before it."""

    study: Study
    folder: StudyFolder
    storage: BaseStorage
    steps: int
    """Of the runs' last stage."""

    @classmethod
    def at(cls, folder: StudyFolder, study: Study, *, steps: int) -> "Desk":
        """The study in a folder, whose trials it makes a place for in its storage.

        Raises:
            ConfigError: there is no such storage.
            StorageError: it cannot be used.
        """
        with folder.alone():  # two that make the tables of a database at once stumble over each other
            desk = cls(study, folder, opened(study.storage, folder.path), steps)
            desk._made(desk._search)
        return desk

    def search(self, owner: str) -> Trials:
        """The trials that look for better settings, for the worker of that name."""
        return self._trials(self._search, owner)

    def finals(self, best: FrozenTrial, owner: str) -> Trials:
        """The runs that compare the settings of the best trial with the recipe's own, on the same seeds."""
        plan = self._comparison(best.number)
        with self.folder.alone():
            self._made(plan)
        trials = self._trials(plan, owner)
        trials.offer(self.pairs())
        return trials

    def pairs(self) -> list[Parameters]:
        """What is to be compared: for each seed, both settings."""
        return [{ARM: arm, SEED: seed} for seed in self.study.seeds for arm in (BEST, RECIPE)]

    @property
    def _search(self) -> Plan:
        study = self.study
        return Plan(
            name=self.folder.path.name,
            space=distributions(study.space),
            budget=study.trials,
            pruner=_pruner(study, self.steps),
            sampler=_sampler(study),
            retries=study.retries,
            direction=study.direction,
        )

    def _comparison(self, number: int) -> Plan:
        study = self.study
        return Plan(
            name=f"{self.folder.path.name}-finals-{number}",
            space={ARM: CategoricalDistribution((BEST, RECIPE)), SEED: CategoricalDistribution(study.seeds)},
            budget=2 * len(study.seeds),
            pruner=NopPruner(),
            sampler=lambda at: RandomSampler(seed=at),
            retries=study.retries,
            direction=study.direction,
        )

    def _made(self, plan: Plan) -> None:
        with told(self.study.storage):
            optuna.create_study(
                storage=self.storage, study_name=plan.name, direction=plan.direction, load_if_exists=True
            )

    def _trials(self, plan: Plan, owner: str) -> Trials:
        return Trials(plan, self.folder, self.storage, named=self.study.storage, owner=owner)


def _pruner(study: Study, steps: int) -> BasePruner:
    if isinstance(study.pruning, MedianPruning):
        return MedianPruner(study.pruning.startup_trials, study.pruning.warmup_steps)
    if isinstance(study.pruning, HyperbandPruning):
        return HyperbandPruner(study.pruning.min_steps, max(steps, 1), study.pruning.reduction_factor)
    return NopPruner()


def _sampler(study: Study) -> Callable[[int], BaseSampler]:
    """What proposes a trial, by its number: a study that was cut short goes on to the same proposals."""

    def made(number: int) -> BaseSampler:
        seed = key(study.seed, "proposal", number) % 2**32
        if study.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=study.startup_trials, multivariate=True, constant_liar=True)

    return made


def values_of(trials: Sequence[FrozenTrial], arm: str) -> dict[int, float]:
    """What each seed came to with the settings of one side."""
    found = [trial for trial in trials if trial.params.get(ARM) == arm and trial.value is not None]
    return {trial.params[SEED]: trial.value for trial in found if trial.value is not None}
