"""Whoever works on a study: takes a trial, runs it, writes down how it ended, takes the next."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial

from fettle.errors import ConfigError, FettleError
from fettle.tuning.trials import Candidate, Outcome, Trials

Objective = Callable[[Candidate], Outcome]
"""Runs a trial."""


def work(trials: Trials, objective: Objective, told: Callable[[FrozenTrial], None]) -> bool:
    """Run trials until there are none left; False where one was interrupted. ``told`` hears how each ended.

    A trial that comes to grief is written down with its reason, and the next one is run.

    Raises:
        ConfigError: every other trial would come to grief for the same reason.
        StorageError: what was found out could not be written down.
    """
    while (candidate := trials.next()) is not None:
        began = time.perf_counter()
        try:
            outcome = objective(candidate)
        except Exception as error:  # noqa: BLE001  it is written down as how this trial ended, and the study goes on
            outcome = Outcome(fault=_sentence(error))
        trials.finish(candidate, replace(outcome, seconds=time.perf_counter() - began))
        told(trials.all()[candidate.number])
        if outcome.hopeless:
            raise ConfigError(outcome.fault)
        if outcome.interrupted:
            return False
    return True


def _sentence(error: Exception) -> str:
    said = error.message if isinstance(error, FettleError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:500]


@dataclass(slots=True)
class Watch:
    """A callback that tells a study how a trial is getting on, and ends the trial where the study says so."""

    metric: str
    candidate: Candidate
    stages: int
    """Of the recipe; the score is of the last one."""
    steps: int
    """Of that stage."""
    pruned: bool = False
    missing: str = ""
    """Why there will be no score."""
    _stage: int = 0

    def after_step(self, step: int, row: Mapping[str, float]) -> bool:
        """Nothing is looked at between evaluations."""
        return False

    def after_evaluation(self, step: int, score: float, row: Mapping[str, float]) -> bool:
        """Whether the trial should end."""
        self._stage += step == 0  # there is one before the first step of each stage
        if self._stage < self.stages:
            return False
        if self.metric not in row:
            measured = ", ".join(sorted(row)) or "none"
            self.missing = f"metric is {self.metric}, which the recipe's runs do not measure: they have {measured}"
            return True
        # What has come to its end is not ended early, whatever it scored.
        beaten = step > 0 and self.candidate.is_beaten(step, float(row[self.metric]))
        self.pruned = beaten and step < self.steps
        return self.pruned
