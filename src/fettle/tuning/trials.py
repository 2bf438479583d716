"""A study's trials: proposed one at a time, owned by whoever runs them, run once for the same settings, never lost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna import Study, Trial, load_study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from fettle.tuning.folder import StudyFolder
from fettle.tuning.space import Parameters
from fettle.tuning.storage import told

OWNER, PLACE, TWIN, FAULT = "owner", "folder", "duplicate_of", "fault"
AGAIN, TRIES, RETRY_OF, SECONDS = "begun_again", "tries", "retry_of", "seconds"
"""What is written beside a trial."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended; with nothing said of it, it was interrupted by whoever watched."""

    value: float | None = None
    """Its score."""
    pruned: bool = False
    """Whether it was ended for what it had scored on its way."""
    fault: str = ""
    """Why it has no score."""
    hopeless: bool = False
    """Whether every other trial would have none for the same reason."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def interrupted(self) -> bool:
        """Whether it is to be begun again."""
        return self.value is None and not self.pruned and not self.fault


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trial that is to be run now, by whoever has it."""

    trial: Trial
    parameters: Parameters

    @property
    def number(self) -> int:
        """Its place in the study."""
        return self.trial.number

    def placed(self, folder: str) -> None:
        """Say which folder it is run in."""
        self.trial.set_user_attr(PLACE, folder)

    def is_beaten(self, step: int, value: float) -> bool:
        """Tell its score after ``step`` steps; whether it should end there."""
        self.trial.report(value, step)
        return self.trial.should_prune()


@dataclass(frozen=True, slots=True)
class Plan:
    """What the trials of a study are."""

    name: str
    """In the storage."""
    space: Mapping[str, BaseDistribution]
    """What is tried."""
    budget: int
    """How many."""
    pruner: BasePruner
    sampler: Callable[[int], BaseSampler]
    """What proposes the trial of that number."""
    retries: int
    """How often one is begun again whose process was killed."""
    direction: Literal["maximize", "minimize"]


class Trials:
    """The trials of one plan, for one of the processes that share them.

    Every method raises ``StorageError`` where the storage fails.
    """

    def __init__(self, plan: Plan, folder: StudyFolder, storage: BaseStorage, *, named: str, owner: str) -> None:
        """``named`` is what the storage is called in a sentence, ``owner`` the worker that these trials are run by."""
        self._plan, self._folder, self._storage, self._named, self._owner = plan, folder, storage, named, owner
        with told(named):
            self._study: Study = load_study(study_name=plan.name, storage=storage, pruner=plan.pruner)

    def all(self) -> list[FrozenTrial]:
        """Every one, in order."""
        with told(self._named):
            return self._study.get_trials(deepcopy=False)

    def best(self) -> FrozenTrial | None:
        """The one with the best score, the earliest of equals; None while none has any."""
        scored = [trial for trial in self.all() if trial.state == TrialState.COMPLETE and TWIN not in trial.user_attrs]
        sign = -1 if self._plan.direction == "maximize" else 1
        return min(scored, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)

    def is_over(self) -> bool:
        """Whether every trial has ended."""
        waiting = any(not trial.state.is_finished() for trial in self.all())
        return not waiting and self._counted() >= self._plan.budget

    def offer(self, parameters: Sequence[Parameters]) -> None:
        """Let these be tried before anything is proposed, unless something was tried already."""
        with self._folder.alone(), told(self._named):
            if not self._study.get_trials(deepcopy=False):
                for each in parameters:
                    self._study.enqueue_trial(dict(each))

    def next(self) -> Candidate | None:
        """A trial to run; None where as many have been given out as there are to be.

        One whose process was killed is begun again. One with the settings of an earlier one is not run, but gets its
        score as soon as there is one.
        """
        with self._folder.alone(), told(self._named):
            self._sweep()
            while self._counted() < self._plan.budget:
                self._study.sampler = self._plan.sampler(len(self._study.get_trials(deepcopy=False)))
                trial = self._study.ask(dict(self._plan.space))
                twin = self._twin(trial.number, trial.params)
                if twin is None:
                    trial.set_user_attr(OWNER, self._owner)
                    return Candidate(trial, trial.params)
                trial.set_user_attr(TWIN, twin.number)
                self._settle()
        return None

    def finish(self, candidate: Candidate, outcome: Outcome) -> None:
        """Write down how it ended."""
        with self._folder.alone(), told(self._named):
            trial = candidate.trial
            trial.set_user_attr(SECONDS, round(outcome.seconds, 3))
            if outcome.pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            elif outcome.value is not None:
                self._study.tell(trial, outcome.value)
            elif outcome.fault:
                trial.set_user_attr(FAULT, outcome.fault)
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._begin_again(self._study.trials[trial.number], tries=None)
            self._settle()

    def _counted(self) -> int:
        """Trials that were given out, less those that were begun again."""
        found = self._study.get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING and AGAIN not in trial.user_attrs for trial in found)

    def _sweep(self) -> None:
        """Record as failed what no living process runs, and have it tried again as often as it may be."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(OWNER)
            # One with no owner, and no twin, is of a process that was killed between asking and saying who it was.
            if TWIN in trial.user_attrs or (owner is not None and self._folder.is_at_work(owner)):
                continue
            tries = int(trial.user_attrs.get(TRIES, 0))
            if tries < self._plan.retries:
                self._begin_again(trial, tries=tries + 1)
            else:
                self._note(trial, FAULT, f"its process was killed, and so were {tries} before it")
                self._study.tell(trial.number, state=TrialState.FAIL)
        self._settle()

    def _begin_again(self, trial: FrozenTrial, *, tries: int | None) -> None:
        """Fail a trial, and enqueue another with its settings; one that was only interrupted keeps its ``tries``."""
        self._note(trial, AGAIN, True)
        self._note(trial, FAULT, "its process was killed" if tries is not None else "it was interrupted")
        self._study.tell(trial.number, state=TrialState.FAIL)
        kept = trial.user_attrs.get(TRIES, 0) if tries is None else tries
        if trial.params.keys() == self._plan.space.keys():
            self._study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number, TRIES: kept})

    def _twin(self, number: int, parameters: Parameters) -> FrozenTrial | None:
        """The first trial with the same settings that has been run, or is."""
        for trial in self._study.get_trials(deepcopy=False):
            same = trial.number < number and trial.params == parameters
            if same and not {TWIN, AGAIN} & trial.user_attrs.keys() and trial.state != TrialState.WAITING:
                return trial
        return None

    def _settle(self) -> None:
        """Give those that repeat another what that one came to."""
        found = self._study.get_trials(deepcopy=False)
        successors = {trial.user_attrs[RETRY_OF]: trial for trial in found if RETRY_OF in trial.user_attrs}
        for trial in found:
            if trial.state != TrialState.RUNNING or TWIN not in trial.user_attrs:
                continue
            twin = found[trial.user_attrs[TWIN]]
            while AGAIN in twin.user_attrs and twin.number in successors:
                twin = successors[twin.number]
                self._note(trial, TWIN, twin.number)
            if twin.state == TrialState.COMPLETE:
                self._study.tell(trial.number, twin.value)
            elif twin.state == TrialState.PRUNED:
                self._study.tell(trial.number, state=TrialState.PRUNED)
            elif twin.state == TrialState.FAIL:
                self._note(trial, FAULT, str(twin.user_attrs.get(FAULT, "")))
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _note(self, trial: FrozenTrial, name: str, value: Any) -> None:
        study = self._storage.get_study_id_from_name(self._plan.name)
        identity = self._storage.get_trial_id_from_study_id_trial_number(study, trial.number)
        self._storage.set_trial_user_attr(identity, name, value)
