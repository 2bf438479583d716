"""Thousands of conversations at once: all of them go on, nothing is left open, and memory is that of their tokens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fettle.config import TinyModel
from fettle.engine.local.tiny import make_tiny_model

from .crowd import REPLY, TURNS

CROWD = 2000
BYTES_A_TOKEN = 100
"""Bounds what an episode may hold for each of its tokens: the number itself, its log-probability, the text."""
BESIDE_MIB = 64
"""What grows with no token: the loop, the code that is loaded at first use."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), folder, texts=["What is 1 + 2 ? 3 to go"] * 9)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is asked of POSIX")
def test_two_thousand_conversations_are_held_at_once_in_bounded_memory(model):
    command = [sys.executable, "-m", "tests.rollouts.crowd", model, str(CROWD)]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["at_once"] == CROWD
    assert told["draws"] == CROWD * TURNS
    assert told["reward"] == CROWD
    assert told["left_open"] == 0
    assert told["tokens"] > CROWD * TURNS * len(REPLY)
    assert told["mib"] < BESIDE_MIB + told["tokens"] * BYTES_A_TOKEN / 2**20
