"""What is tested on Ray, in one process of its own, where the suite's processes run a little of everything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.ranks import BESIDE_OTHERS

ROOT = Path(__file__).parent.parent
OF_XDIST = "PYTEST_XDIST_"


@pytest.mark.skipif(not BESIDE_OTHERS, reason="what is tested on Ray runs by itself in this process")
@pytest.mark.timeout(900)
def test_what_runs_on_ray():
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_XDIST)}
    where = ["tests/cluster", "tests/contracts/test_engines.py", "-k", "cluster or ray"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *where]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]
