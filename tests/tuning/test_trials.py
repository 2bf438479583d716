"""Trials: the optimum is found, each set of values is run once, and what a dead process had is run again."""

import math
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from fettle.errors import ConfigError, EnvironmentFault
from fettle.tuning import Desk, Outcome, line_of, work

TWO = {"kind": {"type": "categorical", "choices": ["a", "b"]}}


def score(candidate) -> Outcome:
    """Best at a rate of 1e-3 and a size of 8."""
    rate, size = float(candidate.parameters["rate"]), int(candidate.parameters["size"])
    return Outcome(value=-((math.log10(rate) + 3) ** 2) - ((size - 8) / 4) ** 2)


def worked(desk, objective=score) -> list:
    """What became of the trials."""
    with desk.folder.worker() as owner:
        work(desk.search(owner), objective, lambda _: None)
        return [line_of(trial) for trial in desk.search(owner).all()]


def test_a_planted_optimum_is_found_and_chance_does_worse(begun):
    def found(sampler):
        desk = begun(trials=25, sampler=sampler, startup_trials=5, seed=1)
        worked(desk)
        return desk.search("").best()

    best = found("tpe")
    assert best.value > found("random").value
    assert (abs(math.log10(best.params["rate"]) + 3) < 0.35, best.params["size"]) == (True, 8)


def test_what_is_proposed_does_not_depend_on_where_a_study_was_cut_short(begun):
    whole = [line.parameters for line in worked(begun(trials=8, startup_trials=4))]
    desk, seen = begun(trials=8, startup_trials=4), []

    def stopped(candidate):
        seen.append(candidate)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return score(candidate)

    with pytest.raises(KeyboardInterrupt):
        worked(desk, stopped)
    lines = worked(Desk.at(desk.folder, desk.study, steps=9))
    assert [line.parameters for line in lines][:7] == whole[:7]
    assert [line.state for line in lines] == ["finished"] * 6 + ["begun again"] + ["finished"] * 2
    assert lines[7].parameters == whole[6]


def test_a_trial_whose_process_was_killed_is_run_again_once(begun):
    desk, fork = begun(trials=2), multiprocessing.get_context("fork")

    def killed(_):
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        process = fork.Process(target=_elsewhere, args=(desk, killed))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    lines = worked(Desk.at(desk.folder, desk.study, steps=9))
    assert [line.state for line in lines] == ["begun again", "failed", "finished"]
    assert lines[0].parameters == lines[1].parameters != lines[2].parameters
    assert lines[1].fault == "its process was killed, and so were 1 before it"
    assert list(desk.folder.workers.iterdir()) == []


def test_a_trial_that_is_being_run_is_left_alone(begun):
    desk = begun(trials=2)
    with desk.folder.worker() as one, desk.folder.worker() as other:
        first = desk.search(one).next()
        second = desk.search(other).next()
        assert (first.number, second.number) == (0, 1)
        assert desk.search(other).next() is None
        assert not desk.search(other).is_over()


def test_two_processes_share_the_trials_and_run_none_twice(begun):
    desk, fork = (
        begun(trials=12, space={"n": {"type": "int", "low": 1, "high": 8}}),
        multiprocessing.get_context("fork"),
    )
    processes = [fork.Process(target=_elsewhere, args=(desk, _noted)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    lines = [line_of(trial) for trial in Desk.at(desk.folder, desk.study, steps=9).search("").all()]
    run = [int(path.name.partition("-")[0]) for path in desk.folder.trials.iterdir()]
    assert len(lines) == 12
    assert len(run) == len(set(run)) == len({line.parameters["n"] for line in lines})
    assert all(line.state == "finished" and line.value == line.parameters["n"] for line in lines)
    repeated = [line for line in lines if line.duplicate_of is not None]
    assert len(repeated) == 12 - len(run) > 0
    assert all(lines[line.duplicate_of].parameters == line.parameters for line in repeated)


def test_settings_that_failed_fail_again_without_being_run(begun):
    ran = []

    def broken(candidate):
        ran.append(candidate.parameters["kind"])
        if candidate.parameters["kind"] == "b":
            raise EnvironmentFault("there is no such table: write it")
        return Outcome(value=1.0)

    lines = worked(begun(trials=8, space=TWO), broken)
    assert sorted(ran) == ["a", "b"]
    assert {line.told for line in lines if line.duplicate_of is None} == {
        "finished",
        "failed: there is no such table: write it",
    }
    assert {line.state for line in lines if line.parameters["kind"] == "b"} == {"failed"}
    assert {line.value for line in lines if line.parameters["kind"] == "a"} == {1.0}


def test_what_repeats_a_trial_that_is_begun_again_waits_for_it(begun):
    desk = begun(trials=6, space=TWO)
    with desk.folder.worker() as owner:
        trials = desk.search(owner)
        assert {trials.next().parameters["kind"], trials.next().parameters["kind"]} == {"a", "b"}
        assert trials.next() is None
        assert not trials.is_over()
    ran = []
    lines = worked(desk, lambda candidate: ran.append(candidate) or Outcome(value=float(candidate.number)))
    assert len(ran) == 2
    values = {candidate.parameters["kind"]: float(candidate.number) for candidate in ran}
    assert [line.state for line in lines].count("begun again") == 2
    assert all(line.value == values[line.parameters["kind"]] for line in lines if line.state == "finished")
    assert [line.state for line in lines].count("finished") == 6


def test_any_error_is_a_sentence_beside_the_trial_and_the_next_is_run(begun):
    def broken(candidate):
        if candidate.number == 1:
            raise ZeroDivisionError("division\nby zero")
        return score(candidate)

    lines = worked(begun(trials=3), broken)
    assert [line.told for line in lines] == ["finished", "failed: ZeroDivisionError: division by zero", "finished"]


def test_what_would_befall_every_trial_ends_the_study(begun):
    desk = begun(trials=3)
    with pytest.raises(ConfigError, match="no such metric"):
        worked(desk, lambda _: Outcome(fault="no such metric", hopeless=True))
    assert [line_of(trial).told for trial in desk.search("").all()] == ["failed: no such metric"]


@pytest.mark.parametrize(
    "pruning",
    [{"type": "median", "startup_trials": 2}, {"type": "hyperband", "min_steps": 1, "reduction_factor": 3}],
    ids=lambda pruning: pruning["type"],
)
def test_what_does_badly_on_its_way_is_ended_there(begun, pruning):
    ended = {}

    def climb(candidate):
        slope = -abs(math.log10(float(candidate.parameters["rate"])) + 3)
        for step in range(1, 10):
            if candidate.is_beaten(step, slope * step):
                ended[candidate.number] = step
                return Outcome(pruned=True)
        return Outcome(value=slope * 9)

    lines = worked(begun(trials=15, sampler="random", pruning=pruning), climb)
    assert ended
    assert {line.number: line.steps for line in lines if line.state == "ended early"} == ended
    assert all(line.steps == 9 for line in lines if line.state == "finished")


def _elsewhere(desk, objective):
    again = Desk.at(desk.folder, desk.study, steps=9)
    with again.folder.worker() as owner:
        work(again.search(owner), lambda candidate: objective(_at(candidate, again)), lambda _: None)
    sys.stdout.flush()


def _at(candidate, desk):
    candidate.placed(str(desk.folder.trials))
    return candidate


def _noted(candidate):
    place = Path(candidate.trial.user_attrs["folder"]) / f"{candidate.parameters['n']}-{candidate.number}"
    place.mkdir()
    time.sleep(0.01)
    return Outcome(value=float(candidate.parameters["n"]))
