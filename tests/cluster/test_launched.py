"""Processes that torchrun or SLURM starts: the numbers of one, and what becomes of the others when one of them ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fettle.cluster.channels import Channels, Meeting
from fettle.cluster.launched import Launched
from fettle.cluster.world import World, first_host, world
from fettle.config import LaunchedEngine
from fettle.errors import ConfigError, EngineError
from tests.cli.conftest import furnished, typed

LAUNCHED = ("-m", "fettle", "train", "tiny.yaml", "--engine", "launched", "engine.start_seconds=100")
ROOT = Path(__file__).parents[2]
MACHINE = ("time/", "speed/", "engine/")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def started(desk: Path, *words: str, **told: object) -> subprocess.Popen[str]:
    """A process of its own, with variables that whoever started it would set."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in told.items()}}
    return subprocess.Popen(
        [sys.executable, *words], cwd=desk, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def rows(runs: Path) -> dict[int, dict[str, float]]:
    """The metrics of the one run there: of a step that was done again, as it was then."""
    [path] = runs.glob("*/metrics.jsonl")
    found: dict[int, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[row["step"]] = {name: value for name, value in row.items() if not name.startswith(MACHINE)}
    return found


def of_rank(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """A process that torchrun has started."""
    for each in psutil.Process(launcher.pid).children(recursive=True):
        if each.environ().get("RANK") == str(rank):
            return each
    raise AssertionError("torchrun has started no such process")


@pytest.mark.timeout(280)
def test_a_rank_that_is_killed_has_all_started_anew_and_go_on_to_the_numbers_of_one_process(tmp_path):
    desk = furnished(tmp_path / "desk")
    few = ("steps=4", "checkpoints.every=2", "optimizer.eps=1e-5", "engine.threads=1")
    assert typed("train", "tiny.yaml", *few, "--runs", "alone", into=desk).code == 0
    how = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    gated = ("environments.0.reward=beside:gated", "--runs", "gated")
    torchrun = started(desk, *how, *LAUNCHED, *few, *gated)
    while not (desk / "waiting").exists():
        assert torchrun.poll() is None, torchrun.communicate()[0]
        time.sleep(0.05)
    of_rank(torchrun, 1).send_signal(signal.SIGKILL)
    (desk / "go").touch()
    said, _ = torchrun.communicate()
    assert torchrun.returncode == 0, said
    assert re.search(
        r"fettle: rank 1 has ended, and all end with it; .* go on with: .*fettle train --resume gated/", said
    )
    [one, other] = (rows(desk / runs) for runs in ("alone", "gated"))
    assert len(list((desk / "gated").iterdir())) == 1
    assert one.keys() == other.keys()
    for step, row in one.items():
        for name, value in row.items():
            if isinstance(value, float) and name in other[step] and name != "time":  # a reward has its own name
                close = 1e-4 if name.endswith("grad_norm") else 2e-6
                assert other[step][name] == pytest.approx(value, rel=close, abs=close), (step, name)


@pytest.mark.timeout(200)
def test_tasks_of_slurm_end_as_the_first_ends(tmp_path):
    desk, port = furnished(tmp_path / "desk"), free_port()
    told = {"SLURM_NTASKS": 2, "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": 7, "MASTER_PORT": port}
    tasks = [
        started(desk, *LAUNCHED, "environments.0.reward=beside:broken", **told, SLURM_PROCID=task, SLURM_LOCALID=task)
        for task in range(2)
    ]
    said = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [1, 1], said
    assert "no such column" in said[0]
    assert said[1] == ""


def test_one_process_that_is_launched_comes_to_the_bits_of_one_that_is_not(tmp_path, monkeypatch):
    desk = furnished(tmp_path / "desk")
    few = ("train", "tiny.yaml", "engine.threads=1", "steps=2", "checkpoints.every=2")
    assert typed(*few, "--runs", "local", into=desk).code == 0
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    ended = typed(*few, "--engine", "launched", "--runs", "launched", into=desk)
    assert ended.code == 0, ended.err
    one, other = (next((desk / runs).glob("*/checkpoints")) for runs in ("local", "launched"))
    files = {path.relative_to(one) for path in one.rglob("*.safetensors")}
    assert files == {path.relative_to(other) for path in other.rglob("*.safetensors")} != set()
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_what_was_started_together_and_what_was_not_is_told_apart(tmp_path, monkeypatch):
    desk = furnished(tmp_path / "desk")
    ended = typed("train", "tiny.yaml", "--engine", "launched", into=desk)
    assert (ended.code, "nobody has launched this process: start it by torchrun" in ended.complaint) == (2, True)
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    ended = typed("train", "tiny.yaml", into=desk)
    assert (ended.code, "torchrun has started 2 processes, and by this recipe each" in ended.complaint) == (2, True)
    ended = typed("train", "tiny.yaml", "--engine", "launched", "engine.start_seconds=0.3", into=desk)
    assert (ended.code, "process 1 of 2 does not find the first at 127.0.0.1:" in ended.complaint) == (1, True)
    assert not (desk / "runs").exists()


def test_what_slurm_says_of_a_task():
    subprocess.run(["bash", "-n", ROOT / "deploy" / "train.sbatch"], check=True)
    told = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[07-09,12],x"}
    assert world(told | {"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "2"}) == World(
        rank=3, size=8, local=1, host="gpu07", port=20_322, kept=False, begun=0, by="SLURM"
    )
    assert [first_host(machines) for machines in ("a", "a,b", "n[1,3]-ib,c", "r1.x,b[2-3]")] == [
        "a",
        "a",
        "n1-ib",
        "r1.x",
    ]
    assert world({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) is None  # the script of a batch, outside srun
    with pytest.raises(ConfigError, match="process 8 of 8, by SLURM's variables"):
        world(told | {"SLURM_PROCID": "8"})
    with pytest.raises(ConfigError, match="torchrun's variables do not say where the processes meet"):
        world({"RANK": "0", "WORLD_SIZE": "2"})


def test_a_stranger_at_the_door_is_not_taken_for_a_rank():
    here = World(rank=0, size=2, local=0, host="127.0.0.1", port=free_port(), kept=False, begun=0, by="torchrun")
    with ThreadPoolExecutor(1) as beside:
        first = Meeting(here, seconds=20)
        led = beside.submit(first.led)
        second = Meeting(replace(here, rank=1), seconds=20)
        place, port, _ = second._store.get(second._name).decode().split()
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((place, int(port))) as stranger:
                stranger.sendall(said)
        silent = socket.create_connection((place, int(port)))
        follower = second.following()
        [channel] = led.result()
        silent.close()
    follower.send("here")
    assert channel.recv() == "here"
    with pytest.raises(EngineError, match=r"of 2 processes \[1\] have not come in 0\.5 s: they have ended, or"):
        Meeting(replace(here, port=free_port()), seconds=0.5).led()


def test_a_fault_in_one_process_is_told_by_every_call_that_follows(tmp_path, monkeypatch):
    backend = Launched(LaunchedEngine(threads=1), Channels([]), lambda: "127.0.0.1", checkpoints=tmp_path)
    monkeypatch.setattr(backend._rank, "carry_out", lambda *_: {}["x"])
    with pytest.raises(KeyError):
        backend.undo("p")
    for call in (lambda: backend.undo("p"), backend.statistics):
        with pytest.raises(EngineError, match=r"the ranks lost each other \(KeyError\('x'\)\), and all end with it"):
            call()
