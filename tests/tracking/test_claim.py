"""One writer a run, for as long as it lives."""

import signal
import subprocess
import sys

import pytest

from fettle.errors import StorageError
from fettle.tracking.claim import claim, is_claimed


def test_nobody_else_may_have_it_until_it_is_let_go(tmp_path):
    assert not is_claimed(tmp_path)
    held = claim(tmp_path)
    assert is_claimed(tmp_path)
    with pytest.raises(StorageError, match="is being written by another process"):
        claim(tmp_path)
    held.close()
    assert not is_claimed(tmp_path)
    claim(tmp_path).close()


def test_a_killed_process_holds_nothing(tmp_path):
    code = "import sys, time; from pathlib import Path; from fettle.tracking.claim import claim\n"
    code += "held = claim(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    assert is_claimed(tmp_path)
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    assert not is_claimed(tmp_path)


def test_a_folder_that_is_gone(tmp_path):
    assert not is_claimed(tmp_path / "gone")
    with pytest.raises(StorageError, match="could not be written"):
        claim(tmp_path / "gone")
