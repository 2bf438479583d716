"""Ctrl-C in a real process: the first saves and says how to go on, the second ends at once; nothing is lost."""

import asyncio
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fettle.cli import waking
from fettle.cli.build import _interruptible
from fettle.tracking import list_runs, read_metrics
from fettle.tracking.claim import claim
from tests.disks import full_disk
from tests.forked import Forked

from .conftest import Ended, furnished, trained, typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

STOPPING = "fettle: stopping after this step, with a checkpoint; Ctrl-C again ends at once\n"


@contextmanager
def waiting(*arguments: str, desk: Path) -> Iterator[Forked]:
    """A process that trains, and now waits in the reward of its third step until there is a file named ``go``."""
    with Forked("train", *arguments, cwd=desk) as process:
        try:
            while not (desk / "waiting").exists():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def interrupted(*arguments: str, desk: Path) -> Ended:
    """How the process ended that was asked once to stop."""
    with waiting(*arguments, desk=desk) as process:
        process.send_signal(signal.SIGINT)
        lines = iter(process.stderr.readline, "")
        before = list(iter(lambda: next(lines), STOPPING))
        (desk / "go").touch()
        out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, "".join(before) + err)


@dataclass(frozen=True)
class Stopped:
    """A desk with a run that was stopped after its third step, and how that ended."""

    desk: Path
    folder: Path
    ended: Ended


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    desk = furnished(tmp_path_factory.mktemp("interrupted") / "a desk")
    ended = interrupted("tiny.yaml", "environments.0.reward=beside:gated", desk=desk)
    [folder] = (desk / "runs").iterdir()
    return Stopped(desk, folder, ended)


@pytest.fixture
def stopped(original: Stopped, tmp_path: Path) -> Stopped:
    """A copy of it, to be gone on with; it may be moved, for nothing in it names its place."""
    desk = tmp_path / "moved"
    shutil.copytree(original.desk, desk)
    return Stopped(desk, desk / original.folder.relative_to(original.desk), original.ended)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_it_saves_and_says_how_to_go_on(original):
    assert original.ended.code == 130
    again = f"fettle train --resume runs/{original.folder.name}"
    assert original.ended.complaint == f"stopped after step 3 of {original.folder.name}; go on with: {again}"
    assert (original.folder / "checkpoints" / "step-000003" / "manifest.json").is_file()
    assert list_runs(original.desk / "runs")[0].status == "interrupted"
    assert again in (original.folder / "report.md").read_text()


def test_what_the_system_sends_to_end_a_process_does_the_same(desk):
    with waiting("tiny.yaml", "environments.0.reward=beside:gated", desk=desk) as process:
        process.send_signal(signal.SIGTERM)
        while process.stderr.readline() != STOPPING:
            assert process.poll() is None
        (desk / "go").touch()
        process.communicate(timeout=120)
    assert process.returncode == 130
    [folder] = (desk / "runs").iterdir()
    assert (folder / "checkpoints" / "step-000003" / "manifest.json").is_file()


def test_gone_on_with_it_ends_as_if_it_had_never_stopped(stopped, run):
    done = typed("train", "--resume", f"runs/{stopped.folder.name}", into=stopped.desk)
    assert done.code == 0, done.err
    assert "step 4/8" in done.err
    assert "step 3/8" not in done.err
    last = Path("checkpoints") / "step-000008"
    assert files(stopped.folder / last) == files(run.folder / last) != {}
    launches = json.loads((stopped.folder / "provenance.json").read_text())["launches"]
    assert [launch["command"][1:] for launch in launches] == [
        ["train", "tiny.yaml", "environments.0.reward=beside:gated"],
        ["train", "--resume", f"runs/{stopped.folder.name}"],
    ]


def test_a_tracker_gets_what_it_lacks_of_the_steps_before(stopped):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = stopped.folder / "config.yaml"
    config.write_text(config.read_text().replace("trackers: []\n", "trackers: [{type: tensorboard}]\n"))
    assert typed("train", "--resume", stopped.folder, into=stopped.desk).code == 0
    events = reader.EventAccumulator(str(next(stopped.folder.glob("tensorboard/*/*")))).Reload()
    rows = read_metrics(stopped.folder / "metrics.jsonl")
    for name in ("reward/mean", "heldout/reward"):
        there = [(row["step"], row[name]) for row in rows if name in row]
        seen = [(each.step, each.value) for each in events.Scalars(name)]
        assert [step for step, _ in seen] == [step for step, _ in there]
        assert [value for _, value in seen] == pytest.approx([value for _, value in there])
        assert there[0][0] < 3


def test_a_full_disk_costs_nothing_that_was_saved(stopped, run):
    kept = stopped.folder / "checkpoints" / "step-000003"
    before = files(kept)
    with full_disk(room=16384):
        done = typed("train", "--resume", stopped.folder, into=stopped.desk)
    assert done.code == 1
    assert "step-000004 could not be written" in done.complaint
    assert files(kept) == before
    assert typed("train", "--resume", stopped.folder, into=stopped.desk).code == 0
    last = Path("checkpoints") / "step-000008"
    assert files(stopped.folder / last) == files(run.folder / last) != {}


def test_what_the_system_refuses_is_one_sentence_too(stopped):
    (stopped.folder / "evaluations").rename(stopped.folder / "elsewhere")
    (stopped.folder / "evaluations").touch()
    done = typed("train", "--resume", stopped.folder, into=stopped.desk)
    assert done.code == 1
    assert done.complaint == f"{stopped.folder / 'evaluations'}: File exists"


def test_an_altered_checkpoint_is_refused(stopped):
    weights = stopped.folder / "checkpoints" / "step-000003" / "model.safetensors"
    altered = bytearray(weights.read_bytes())
    altered[-1] ^= 1
    weights.write_bytes(altered)
    done = typed("train", "--resume", stopped.folder, into=stopped.desk)
    assert done.code == 1
    assert f"{weights} is not what was saved" in done.complaint


def test_a_run_that_another_process_writes_is_refused(stopped):
    before = {path: path.read_bytes() for path in stopped.folder.rglob("*") if path.is_file()}
    with claim(stopped.folder):
        done = typed("train", "--resume", stopped.folder, into=stopped.desk)
    assert done.code == 1
    assert "is being written by another process" in done.complaint
    assert {path: path.read_bytes() for path in stopped.folder.rglob("*") if path.is_file()} == before


def test_a_recipe_beside_resume_is_refused(stopped):
    done = typed("train", "tiny.yaml", "--resume", stopped.folder, into=stopped.desk)
    assert done.code == 2
    assert done.complaint == "a resumed run keeps its own recipe: give --resume FOLDER and nothing else"


def test_asked_twice_it_ends_at_once(desk):
    with waiting("tiny.yaml", "environments.0.reward=beside:gated", desk=desk) as process:
        process.send_signal(signal.SIGINT)
        while process.stderr.readline() != STOPPING:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (desk / "go").exists()
    [folder] = (desk / "runs").iterdir()
    (desk / "go").touch()
    assert typed("train", "--resume", folder, into=desk).code == 0


def test_a_pipeline_is_gone_on_with_by_its_own_folder(desk, tmp_path):
    tasks = "{type: jsonl, path: questions.jsonl, reward: 'beside:gated', answer_in: text, system: null, heldout: 6}"
    changes = ("steps=4", "groups_per_step=12", "evaluation.every=4", f"environments=[{tasks}]")
    overrides = [f"stages.1.{change}" for change in changes]
    ended = interrupted("pipeline.yaml", *overrides, desk=desk)
    [folder] = (desk / "runs").iterdir()
    assert ended.code == 130
    assert ended.complaint == f"stopped after step 3 of grpo; go on with: fettle train --resume runs/{folder.name}"
    assert typed("train", "--resume", folder, into=desk).code == 0

    straight = furnished(tmp_path / "straight")
    (straight / "go").touch()
    assert typed("train", "pipeline.yaml", *overrides, into=straight).code == 0
    [other] = (straight / "runs").iterdir()
    for last in (Path("warm-up/checkpoints/step-000003"), Path("grpo/checkpoints/step-000004")):
        assert files(folder / last) == files(other / last) != {}


def test_a_stage_that_ended_early_is_not_gone_on_with(desk):
    """Its last weights are what the next stage started from."""
    worse = ("steps=20", "optimizer.learning_rate=5", "evaluation.every=1", "evaluation.patience=1")
    done = trained("pipeline.yaml", desk, *(f"stages.0.{change}" for change in worse))
    before = files(done.folder / "warm-up" / "checkpoints" / "step-000001")
    shutil.rmtree(done.folder / "grpo")  # as if the power had gone between the stages
    assert typed("train", "--resume", done.folder, into=desk).code == 0
    assert json.loads((done.folder / "warm-up" / "summary.json").read_text())["steps"] == 1
    assert files(done.folder / "warm-up" / "checkpoints" / "step-000001") == before != {}
    assert json.loads((done.folder / "grpo" / "summary.json").read_text())["steps"] == 2


def test_a_finished_run_is_left_as_it_is(run):
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    done = typed("train", "--resume", run.folder, into=run.desk)
    assert done.code == 0
    assert done.out.startswith(f"the run in {run.folder} is finished, and nothing is left to do\n")
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def told_beside(late: list[str]) -> None:
    """Ctrl-C comes to another thread, which does not end the sleep of the one that heeds it; the clock does, later."""
    asyncio.get_running_loop().call_later(20, late.append, "woken by the clock")
    threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()


def test_a_run_whose_loop_sleeps_is_woken_by_it(capfd):
    late: list[str] = []

    async def waiting():
        stop = asyncio.Event()
        with _interruptible(stop):
            told_beside(late)
            await stop.wait()

    asyncio.run(waiting())
    assert not late
    assert capfd.readouterr().err == f"\n{STOPPING}"


def test_a_verb_that_only_waits_is_ended_by_it():
    late: list[str] = []

    async def waiting():
        told_beside(late)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        waking.run(waiting())
    assert not late
