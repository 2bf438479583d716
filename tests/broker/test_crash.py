"""Killed with SIGKILL at random moments, three policies come to the bits of an undisturbed run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model

DRIVER = Path(__file__).with_name("crash_driver.py")
RUNS, KILLS = 2, 3


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("crash")
    settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
    model = make_tiny_model(settings, folder / "tiny", texts=["one two three"] * 9)
    command = [sys.executable, str(DRIVER), model, str(folder / "runs"), str(RUNS), str(KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["runs"]


def test_the_kills_fell_into_the_work(outcomes):
    assert sum(outcome["kills"] for outcome in outcomes) >= RUNS


def test_no_acknowledged_operation_is_lost(outcomes):
    assert [outcome["lost"] for outcome in outcomes] == [0] * RUNS


def test_every_answer_and_the_final_weights_are_those_of_the_undisturbed_run(outcomes):
    """The answer to the last operation of each policy is the digest of its weights and moments."""
    assert [outcome["answers"] for outcome in outcomes] == [True] * RUNS


def test_weights_pinned_before_the_kills_draw_the_same_afterwards(outcomes):
    assert [outcome["drawn"] for outcome in outcomes] == [True] * RUNS
