"""The pool: workers that die are replaced, nothing outlives its owner, and where walls cannot be had nothing runs."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from fettle.config import SandboxSettings
from fettle.errors import SandboxError
from fettle.sandbox import isolation, sandbox

SOMEBODY = 61234
"""A user without rights, and without an account."""
MAIN = """
import asyncio, sys
from fettle.config import SandboxSettings
from fettle.sandbox import isolation, sandbox

async def main():
    one = sandbox(SandboxSettings(workers=1, isolation=LEVEL))
    print(one.isolation(), flush=True)
    print((await one.run(SOURCE)).stdout.decode(), flush=True)

asyncio.run(main())
"""


def script(source="print('ran')", level="strongest"):
    return MAIN.replace("LEVEL", repr(level)).replace("SOURCE", repr(source))


def workers():
    mine = psutil.Process().children()
    return [each for each in mine if "fettle.sandbox.inside" in " ".join(each.cmdline())]


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_the_isolation_is_named_with_its_walls():
    found = isolation(SandboxSettings(workers=1, seconds=4.0))
    assert found.name == "namespaces"
    assert {"seccomp", "rlimits"} < set(found.walls)
    assert len({"cgroup", "watchdog"} & set(found.walls)) == 1
    assert "seccomp" in str(found)


def test_the_same_settings_are_the_same_sandbox():
    assert sandbox(SandboxSettings(seconds=3.0)) is sandbox(SandboxSettings(seconds=3.0))
    assert sandbox(SandboxSettings(seconds=3.0)) is not sandbox(SandboxSettings(seconds=3.5))


async def test_a_closed_sandbox_refuses_and_the_next_is_a_new_one():
    settings = SandboxSettings(workers=1, seconds=2.0)
    one = sandbox(settings)
    await one.run("")
    await one.close()
    with pytest.raises(SandboxError, match="closed"):
        await one.run("")
    assert (await sandbox(settings).run("print(1)")).stdout == b"1\n"
    await sandbox(settings).close()


async def test_a_worker_that_died_between_programs_is_replaced_unseen():
    one = sandbox(SandboxSettings(workers=1, seconds=6.0))
    before = set(workers())
    await one.run("")
    (mine,) = set(workers()) - before
    for process in [*mine.children(recursive=True), mine]:
        process.kill()
    until(lambda: not mine.is_running() or mine.status() == psutil.STATUS_ZOMBIE)
    assert (await one.run("print(1)")).stdout == b"1\n"
    await one.close()


async def test_a_worker_that_dies_during_a_program_is_an_error_and_no_outcome():
    one = sandbox(SandboxSettings(workers=1, seconds=7.0))
    before = set(workers())
    await one.run("")
    (mine,) = set(workers()) - before
    running = asyncio.ensure_future(one.run("import time; time.sleep(60)"))
    await asyncio.to_thread(until, lambda: len(mine.children(recursive=True)) >= 3)
    mine.children()[0].kill()
    with pytest.raises(SandboxError, match="gone"):
        await running
    assert (await one.run("print(1)")).stdout == b"1\n"
    await one.close()


async def test_closing_leaves_no_process():
    one = sandbox(SandboxSettings(workers=2, seconds=8.0))
    before = set(workers())
    await asyncio.gather(*(one.run("") for _ in range(8)))
    assert len(set(workers()) - before) == 2
    await one.close()
    assert set(workers()) <= before


@pytest.mark.parametrize("level", ["strongest", "none"])
def test_nothing_outlives_an_owner_that_is_killed(level, tmp_path):
    sleeper = "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(60)"
    folders = set(left_behind())
    owner = subprocess.Popen([sys.executable, "-c", script(sleeper, level)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline()
    process = psutil.Process(owner.pid)
    # strongest: who waits outside, the worker, the first process, the program and its child; none: all but the first
    until(lambda: len(process.children(recursive=True)) >= (5 if level == "strongest" else 4))
    family = process.children(recursive=True)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family))
    until(lambda: set(left_behind()) <= folders)


def left_behind():
    """Folders, of files and of control groups."""
    return [*Path("/tmp").glob("fettle-sandbox-*"), *Path("/sys/fs/cgroup").rglob("fettle-sandbox-*")]


def test_an_owner_that_ends_during_a_program_waits_for_nobody():
    source = script().replace("asyncio.run(main())", "")
    source += "import threading, time\none = sandbox(SandboxSettings(workers=1))\n"
    source += "program = one.run('import time; time.sleep(60)', seconds=60)\n"
    source += "threading.Thread(target=asyncio.run, args=(program,), daemon=True).start()\ntime.sleep(1)"
    assert subprocess.run([sys.executable, "-c", source], timeout=50).returncode == 0


def as_somebody(*command, path):
    who = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": ()}
    how = {"env": {"PYTHONPATH": path}, "cwd": "/", "text": True, "capture_output": True, "timeout": 60}
    return subprocess.run(command, **who, **how)


def interpreter_for_somebody():
    """An interpreter that any user may use, with what it needs of ours to import, or None."""
    path = os.pathsep.join(place for place in sys.path if place)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin"))
    for candidate in filter(None, candidates):
        try:
            if as_somebody(candidate, "-c", "import fettle.config", path=path).returncode == 0:
                return candidate, path
        except PermissionError:
            continue
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests run without rights")
@pytest.mark.parametrize("level", ["strongest", "rlimits"])
def test_it_works_for_a_user_without_rights(level):
    found = interpreter_for_somebody()
    if found is None:
        pytest.skip("no interpreter here is open to all users")
    told = as_somebody(found[0], "-c", script(level=level), path=found[1])
    assert "ran" in told.stdout, told.stderr


def without_namespaces(level):
    """Run in a namespace of users in which no further one can be made."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    command = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    everything = ["unshare", "-Ur", "sh", "-c", command, sys.executable, script(level=level)]
    return subprocess.run(everything, text=True, capture_output=True, timeout=60)


def test_where_namespaces_cannot_be_had_nothing_runs_and_what_would_is_named():
    told = without_namespaces("strongest")
    assert told.returncode != 0
    assert "ran" not in told.stdout
    last = told.stderr.splitlines()[-1]
    assert "ConfigError" in last
    assert "isolation: rlimits, which lacks a file system" in last
    assert "isolation: namespaces" not in last


def test_a_weaker_isolation_runs_where_it_is_named():
    told = without_namespaces("none")
    assert told.stdout.split("\n")[:2] == ["none (no walls)", "ran"], told.stderr


def test_a_script_needs_no_loop_to_learn_what_would_confine_it():
    source = textwrap.dedent("""
        from fettle.config import SandboxSettings
        from fettle.sandbox import isolation
        print(isolation(SandboxSettings(workers=1)).name)
    """)
    told = subprocess.run([sys.executable, "-c", source], text=True, capture_output=True, timeout=60)
    assert told.stdout == "namespaces\n", told.stderr
