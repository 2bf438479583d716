"""``fettle tune`` on a real Ray of this machine: a worker that is killed, a study that is stopped and gone on with."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.cli.conftest import furnished, typed
from tests.cli.test_tune import SMALL, write_study

pytest.importorskip("ray", reason="workers of type ray need the extra cluster")

from fettle.cli.studied import Tuning
from fettle.tuning import StudyFolder, line_of

ON_RAY = "workers: {type: ray, count: 2}\n"


def _at_a_trial() -> Iterator[psutil.Process]:
    """Processes that run trials, as they are seen."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for process in psutil.Process().children(recursive=True):
            try:
                if process.name().startswith("ray::") and any("/trials/" in file.path for file in process.open_files()):
                    yield process
            except psutil.Error:
                continue
        time.sleep(0.02)


def _clusters() -> Iterator[int]:
    """What this process has begun, and no other test's process beneath it."""
    return (each.pid for each in psutil.Process().children() if each.name() == "raylet")


def _disturbed(killed: list[int], clusters: list[int]) -> None:
    """Kill a worker at its trial, and ask the study to stop while another is at one."""
    seen = _at_a_trial()
    first = next(seen)
    clusters.extend(_clusters())
    first.kill()
    killed.append(first.pid)
    next(process for process in seen if process.pid != first.pid)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_worker_that_is_killed_costs_no_trial_and_a_study_that_is_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else other tests leave its workers little
    desk, killed, clusters = furnished(tmp_path), [], []
    write_study(desk, trials=4, more=ON_RAY)
    threading.Thread(target=_disturbed, args=(killed, clusters), daemon=True).start()
    stopped = typed("tune", "sums.yaml", *SMALL, "steps=20", "--study", "study.yaml", into=desk)
    assert (stopped.code, len(killed)) == (130, 1), stopped.err
    assert "stopped, and what was found is kept" in stopped.err
    [folder] = (desk / "studies").iterdir()
    assert typed("tune", "--resume", folder, "--only", "trials", into=desk).code == 0
    lines = [line_of(trial) for trial in Tuning.at(StudyFolder.open(folder)).desk.search("").all()]
    begun = [line for line in lines if line.state == "begun again"]
    assert "its process was killed" in {line.fault for line in begun}
    assert sum(line.state in ("finished", "ended early") for line in lines) == 4
    assert len({line.folder for line in lines}) == len(lines) == len(list((folder / "trials").iterdir()))
    assert (len(clusters), list(_clusters())) == (1, [])


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        ("address: 'nobody.invalid:6379'", "where no cluster of Ray answers"),
        ("address: auto}\nstorage: {sqlite", "whose locks the machines of a cluster do not share"),
        ("address: 'http://here'", "write host:6379, or auto"),
    ],
)
def test_what_cannot_be_is_told(fettle, desk, workers, says):
    write_study(desk, trials=2, more=f"workers: {{type: ray, {workers}}}\n".replace("{sqlite}", "sqlite"))
    assert says in fettle("tune", "sums.yaml", *SMALL, "--study", "study.yaml").complaint
