"""What is tested on Ray, in one process of its own, where the suite's processes run a little of everything.

It mostly waits for processes to begin, and so is begun with the suite, beside its two workers.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster.ranks import BESIDE_OTHERS

ROOT = Path(__file__).parent.parent
OF_XDIST = "PYTEST_XDIST_"
WHAT = ("tests/cluster", "tests/contracts/test_engines.py", "-k", "cluster or ray")


def place() -> Path:
    """Where all workers of this run of the suite find what came of it."""
    return Path(tempfile.gettempdir()) / f"fettle-on-ray-{os.environ['PYTEST_XDIST_TESTRUNUID']}"


def begin() -> None:
    """Run it, and write down what it printed and, once it has ended, how."""
    folder = place()
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_XDIST)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *WHAT]
    with (folder / "printed").open("w") as printed:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=printed, stderr=printed, check=False)
    (folder / "ended").write_text(str(done.returncode))


@pytest.mark.skipif(not BESIDE_OTHERS, reason="what is tested on Ray runs by itself in this process")
@pytest.mark.timeout(900)
def test_what_runs_on_ray():
    pytest.importorskip("ray")
    while not (place() / "ended").exists():
        time.sleep(0.2)
    assert (place() / "ended").read_text() == "0", (place() / "printed").read_text()[-20_000:]
