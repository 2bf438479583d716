"""Recipes as jobs of a real Ray cluster, whose machines have a ``fettle`` that says what it was asked and waits."""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import furnished, typed

STAND_IN = """#!/bin/sh
echo "fettle $*"; ls; cat recipe.yaml; echo "$GREETING"
mkdir -p {runs}/tiny-1; touch {runs}/tiny-1/config.yaml
case "$2" in --resume) exit 3;; esac
trap 'echo saved; exit 130' TERM
while :; do sleep 0.05; done
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A cluster with its dashboard, and two processors."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    there = tmp_path_factory.mktemp("there")
    (there / "fettle").write_text(STAND_IN.format(runs=there / "runs" / "mine"))
    (there / "fettle").chmod(0o755)
    port, agent = free_ports()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="fettle-") as folder:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_TMPDIR", folder)  # where it notes which cluster is this machine's
        Path(folder, "ray").mkdir()
        patch.setenv("PATH", f"{there}{os.pathsep}{os.environ['PATH']}")
        head = {
            "num_cpus": 2,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": port,
            "dashboard_agent_listen_port": agent,  # else the same for all clusters of a machine
            "object_store_memory": 80 << 20,
            "temp_dir": folder,
        }
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            cluster.shutdown()


def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]


def until(said: str, *words: object, into: Path) -> str:
    """What a command prints once that is in it."""
    for _ in range(600):
        ended = typed("submit", *words, into=into)
        if said in ended.out:
            break
        time.sleep(0.1)
    assert said in ended.out
    return ended.out


@pytest.mark.skipif(" " in sys.executable, reason="Ray begins jobs by a line in which such a path is two words")
def test_a_run_is_submitted_once_looked_at_stopped_and_gone_on_with(address, tmp_path, monkeypatch):
    desk, at = furnished(tmp_path / "desk"), ("--address", address)
    runs = Path(os.environ["PATH"].partition(os.pathsep)[0]) / "runs"
    monkeypatch.setenv("GREETING", "good day")
    mine = ("tiny.yaml", "--id", "mine", "--runs", runs, "--env", "GREETING", "engine.workers=2", *at)
    ended = typed("submit", *mine, into=desk)
    assert (ended.err, ended.code) == ("", 0)
    assert "submitted mine, with beside.py, questions.jsonl; its folder will be in" in ended.out
    again = typed("submit", *mine, into=desk)
    assert again.code == 1
    assert again.complaint.startswith(f"there is a run mine at {address} already, and it is ")

    printed = until("good day", "--logs", "mine", *at, into=desk)
    assert f"fettle train recipe.yaml --runs {runs}/mine\n" in printed
    assert "beside.py\nquestions.jsonl\nrecipe.yaml" in printed
    assert ("  type: ray\n" in printed, "  workers: 2\n" in printed, "  address: auto\n" in printed) == (True,) * 3
    assert typed("submit", "--status", "mine", *at, into=desk).out.startswith("mine is RUNNING")
    assert "can be gone on with once it has ended" in typed("submit", *mine, "--again", into=desk).complaint
    assert typed("submit", "--stop", "mine", *at, into=desk).out.startswith("mine is saving a checkpoint")
    until("mine is STOPPED", "--status", "mine", *at, into=desk)
    until("saved", "--logs", "mine", *at, into=desk)

    ended = typed("submit", *mine, "--again", "--follow", into=desk)
    assert f"fettle train --resume {runs}/mine/tiny-1" in ended.out, ended.out
    assert (ended.code, "\nmine is FAILED: " in ended.out) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name one thing: a recipe to submit"),
        (("tiny.yaml", "--address", "10.0.0.1:8265"), "write that of the cluster's dashboard, as http://HEAD:8265"),
        (("tiny.yaml", "--address", "http://127.0.0.1:9"), "nothing answers at http://127.0.0.1:9 ("),
        (("tiny.yaml", "--env", "NO_SUCH_VARIABLE"), "hands on what is in NO_SUCH_VARIABLE here, and there is nothing"),
        (("--status", "other"), "there is no run other at "),
        (
            ("tiny.yaml", "environments.0.path=absent.jsonl"),
            "environments.0.path is absent.jsonl, and there is no such file",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_cannot_be_submitted_is_told(address, tmp_path, words, said):
    given = words if "--address" in words else (*words, "--address", address)
    assert said in typed("submit", *given, into=furnished(tmp_path / "desk")).complaint


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    for loaded in ("ray.job_submission", "fettle.deploy.jobs"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = typed("submit", "tiny.yaml", "--address", "http://127.0.0.1:9", into=furnished(tmp_path / "desk"))
    assert (ended.code, ended.complaint) == (
        2,
        "jobs are handed to Ray, and Ray is not installed: pip install 'fettle[cluster]'",
    )
