"""A list of runs says what is true, whatever state they were left in."""

import types

import pytest

from fettle.tracking import FileTracker, RunFolder, RunSummary, list_runs, write_report, write_stages_report


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.at(tmp_path / "demo-1")
    folder.write_config("type: rl\nname: demo\nsteps: 2\n")
    return folder


def played(folder: RunFolder, *, interrupted: bool = False, reward: float = 0.5) -> None:
    """A start, one row, an end."""
    folder.write_provenance(["fettle", "train"])
    tracker = FileTracker(folder)
    tracker.log(1, {"reward/mean": reward})
    tracker.close()
    write_report(folder, outcome(interrupted=interrupted))


def outcome(**fields):
    defaults = {
        "steps": 2,
        "tokens": 10,
        "seconds": 1.0,
        "first": {},
        "last": {},
        "checkpoint": "",
        "best_checkpoint": "",
    }
    return types.SimpleNamespace(**{**defaults, **fields})


def only(root) -> RunSummary:
    (found,) = list_runs(root)
    return found


def test_no_folder_no_runs(tmp_path):
    assert list_runs(tmp_path / "gone") == []
    assert list_runs(tmp_path) == []


def test_what_is_no_run_is_left_out(tmp_path, run):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "just-made").mkdir()
    assert [found.name for found in list_runs(tmp_path)] == ["demo-1"]


def test_a_run_from_beginning_to_end(tmp_path, run):
    assert only(tmp_path) == RunSummary("demo-1", "rl", "interrupted", 0, None, "")
    run.write_provenance(["fettle", "train"])
    started = run.launches()[0]["started"]
    tracker = FileTracker(run)
    assert only(tmp_path).status == "running"
    tracker.log(1, {"reward/mean": 0.5})
    assert only(tmp_path) == RunSummary("demo-1", "rl", "running", 1, 0.5, started)
    tracker.log(2, {"reward/mean": 0.625})
    tracker.log(2, {"heldout/reward": 0.75})
    tracker.close()
    assert only(tmp_path).status == "interrupted"  # it has not said that it is done
    write_report(run, outcome(interrupted=False))
    assert only(tmp_path) == RunSummary("demo-1", "rl", "finished", 2, 0.75, started)


def test_a_run_that_was_interrupted(tmp_path, run):
    played(run, interrupted=True)
    assert only(tmp_path).status == "interrupted"


def test_a_finished_run_that_is_taken_up_again_and_dies_is_not_finished(tmp_path, run):
    played(run)
    run.write_provenance(["fettle", "train", "--resume"])
    assert only(tmp_path).status == "interrupted"
    played(run)
    assert only(tmp_path).status == "finished"


def test_supervised_runs_have_no_reward(tmp_path, run):
    tracker = FileTracker(run)
    tracker.log(3, {"loss": 0.5})
    tracker.close()
    assert only(tmp_path).reward is None
    assert only(tmp_path).steps == 3


@pytest.mark.parametrize("recipe", ["", "type: [", "- a\n", "\x00", "name: x\n", "type: pipeline\nstages: 3\n"])
def test_half_written_folders(tmp_path, run, recipe):
    run.config_path.write_text(recipe)
    run.metrics_path.write_bytes(b'{"step": 1, "reward/mean": 0.5}\n{"st')
    run.provenance_path.write_text("{")
    run.summary_path.write_text("[1")
    found = only(tmp_path)
    assert (found.status, found.steps, found.reward, found.started) == ("interrupted", 1, 0.5, "")
    assert found.kind in {"unknown", "pipeline"}


def test_a_pipeline_is_the_sum_of_its_stages(tmp_path):
    whole = RunFolder.at(tmp_path / "demo-1")
    whole.write_config("type: pipeline\nstages:\n- {type: sft, name: warm-up}\n- {type: rl, name: grpo}\n")
    assert only(tmp_path).status == "interrupted"
    stages = [RunFolder.at(whole.path / name) for name in ("warm-up", "grpo")]
    played(stages[0], reward=0.25)
    assert only(tmp_path).status == "interrupted"
    tracker = FileTracker(stages[1])
    assert only(tmp_path).status == "running"
    tracker.close()
    played(stages[1], reward=0.75)
    assert only(tmp_path).status == "interrupted"  # the stages have not been compared
    write_stages_report(whole, [], interrupted=False)
    started = stages[0].launches()[0]["started"]
    assert only(tmp_path) == RunSummary("demo-1", "pipeline", "finished", 2, 0.75, started)


def test_oldest_first(tmp_path):
    for name, started in (("b", "2026-11-21T09:00:00+00:00"), ("a", "2026-11-21T10:00:00+00:00")):
        folder = RunFolder.at(tmp_path / name)
        folder.write_config("type: rl\n")
        folder.provenance_path.write_text(f'{{"launches": [{{"started": "{started}"}}]}}')
    assert [run.name for run in list_runs(tmp_path)] == ["b", "a"]
