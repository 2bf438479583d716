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

ORPHANED = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]])"
"""No process of the suite is to be its parent: some tests look at all that theirs has begun."""

WRITTEN_DOWN = """
import pathlib, subprocess, sys
folder, *command = sys.argv[1:]
with open(f"{folder}/printed", "w") as printed:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed)
pathlib.Path(folder, "ending").write_text(str(done.returncode))
pathlib.Path(folder, "ending").rename(pathlib.Path(folder, "ended"))
"""


def place() -> Path:
    """Where all workers of this run of the suite find what came of it."""
    return Path(tempfile.gettempdir()) / f"fettle-on-ray-{os.environ['PYTEST_XDIST_TESTRUNUID']}"


def begin() -> None:
    """Have it run, and what it prints and, once it has ended, how, written down."""
    folder = place()
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_XDIST)}
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *WHAT]
    apart = [sys.executable, "-c", ORPHANED, "-c", WRITTEN_DOWN, str(folder)]
    subprocess.run([*apart, *tests], cwd=ROOT, env=environment, check=True)


@pytest.mark.skipif(not BESIDE_OTHERS, reason="what is tested on Ray runs by itself in this process")
@pytest.mark.timeout(900)
def test_what_runs_on_ray():
    pytest.importorskip("ray")
    while not (place() / "ended").exists():
        time.sleep(0.2)
    assert (place() / "ended").read_text() == "0", (place() / "printed").read_text()[-20_000:]
