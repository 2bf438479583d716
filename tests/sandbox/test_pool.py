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
from fettle.sandbox.worker import Worker

SOMEBODY = 61234
"""A user without rights, and without an account."""
MAIN = """
import asyncio, sys
from fettle.config import SandboxSettings
from fettle.sandbox import isolation, sandbox

async def main():
    one = sandbox(SandboxSettings(workers=1, isolation=LEVEL))
    print(one.isolation(), flush=True)
    print((await one.run(SOURCE, seconds=60)).stdout.decode(), flush=True)

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


async def test_a_worker_that_dies_just_after_it_was_looked_at_is_replaced_as_well(monkeypatch):
    one = sandbox(SandboxSettings(workers=1, seconds=6.5))
    before = set(workers())
    await one.run("")
    (mine,) = set(workers()) - before
    monkeypatch.setattr(Worker, "alive", lambda worker: True)
    for process in [*mine.children(recursive=True), mine]:
        process.kill()
    until(lambda: not mine.is_running() or mine.status() == psutil.STATUS_ZOMBIE)
    assert (await one.run("print(1)")).stdout == b"1\n"
    await one.close()


async def test_a_worker_that_dies_before_a_program_is_confined_is_replaced_as_well():
    one = sandbox(SandboxSettings(workers=1, seconds=6.7))
    before = set(workers())
    await one.run("")
    (mine,) = set(workers()) - before
    family = [*mine.children(recursive=True), mine]
    for process in family:
        process.suspend()
    running = asyncio.ensure_future(one.run("print(1)"))
    await asyncio.sleep(0.3)  # it is asked, and says nothing
    for process in family:
        process.kill()
    assert (await running).stdout == b"1\n"
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


async def test_more_files_than_there_is_disk_for_are_one_sentence():
    files = {f"parts/{number}.py": b"" for number in range(100)}
    count = "import os; print(len(os.listdir('parts')))"
    outcome = await sandbox(SandboxSettings(workers=1, disk_mib=2)).run(count, files=files)
    assert outcome.stdout == b"100\n"
    with pytest.raises(
        SandboxError, match=r"files could not be written \(No space left.*\): raise disk_mib of the sandbox"
    ):
        await sandbox(SandboxSettings(workers=1, disk_mib=1)).run(count, files=files)


def test_a_job_whose_owner_is_held_up_before_it_runs_keeps_all_its_time():
    worker = Worker(SandboxSettings(workers=1), packages=False)
    try:
        spec = {"kind": "calls", "source": "def f(): return 1", "function": "f"}
        with worker.begin(spec, 0.1):
            time.sleep(1.5)  # as a busy machine takes, in place of its program, to build walls
            assert worker.end(stop=True).why == "asked"
    finally:
        worker.close()


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
    owner = subprocess.Popen([sys.executable, "-c", script(sleeper, level)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline()
    process = psutil.Process(owner.pid)
    # strongest: who waits outside, the worker, the first process, the program and its child; none: all but the first
    until(lambda: len(process.children(recursive=True)) >= (5 if level == "strongest" else 4))
    family = process.children(recursive=True)
    names = {f"fettle-sandbox-{each.pid}" for each in family} | {Path(each.cwd()).name for each in family}
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family))
    until(lambda: not names & {path.name for path in left_behind()})


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


UNSEEN = """
import mmap, socket
for attempt in (
    lambda: mmap.mmap(-1, 4096),
    lambda: open("/dev/zero", "rb"),
    lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
):
    try:
        attempt()
        print("through")
    except OSError:
        print("stopped")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests run without rights")
@pytest.mark.parametrize("level", ["strongest", "rlimits"])
def test_memory_that_nobody_would_count_is_not_to_be_had_where_there_is_no_control_group(level):
    found = interpreter_for_somebody()
    if found is None:
        pytest.skip("no interpreter here is open to all users")
    told = as_somebody(found[0], "-c", script(UNSEEN, level), path=found[1])
    assert told.stdout.split()[-3:] == ["stopped"] * 3, told.stderr


LIMITED = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
ROOT_OF_ALL = """
import ctypes, os, sys
up, say_up = os.pipe()
mapped, say_mapped = os.pipe()
child = os.fork()
if child == 0:
    ctypes.CDLL(None).unshare(0x10000000)
    os.write(say_up, b"x")
    os.read(mapped, 1)
    os.execvp("sh", ["sh", "-c", *sys.argv[1:]])
os.read(up, 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(say_mapped, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Run a command as root of a namespace of users that has nearly all of them."""
FILTERED = """
import ctypes, os, struct, sys
# As a container's profile has it: clone with any new namespace is not permitted.
program = b"".join(struct.pack("=HBBI", *each) for each in [
    (0x20, 0, 0, 0), (0x15, 0, 3, {"x86_64": 56, "aarch64": 220}[os.uname().machine]), (0x20, 0, 0, 16),
    (0x45, 0, 1, 0x7E020000), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000),
])
held = ctypes.create_string_buffer(program, len(program))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
told = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
assert libc.prctl(22, 2, ctypes.c_char_p(told), 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def without_namespaces(level, way="limited"):
    """Run where no namespace of users can be made."""
    program = [sys.executable, script(level=level)]
    commands = {
        "limited": ["unshare", "-Ur", "sh", "-c", LIMITED, *program],
        "limited for root": [sys.executable, "-c", ROOT_OF_ALL, LIMITED, *program],
        "filtered": [sys.executable, "-c", FILTERED, program[1]],
    }
    if shutil.which("unshare") is None and way == "limited":
        pytest.skip("there is no unshare")
    if os.geteuid() != 0 and way == "limited for root":
        pytest.skip("only root can make itself one of many users")
    return subprocess.run(commands[way], text=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("way", ["limited", "limited for root", "filtered"])
def test_where_namespaces_cannot_be_had_nothing_runs_and_what_would_is_named(way):
    told = without_namespaces("strongest", way)
    assert told.returncode != 0
    assert "ran" not in told.stdout
    last = told.stderr.splitlines()[-1]
    assert "ConfigError" in last
    assert "isolation: rlimits, which lacks a file system" in last
    assert "isolation: namespaces" not in last


@pytest.mark.parametrize("way", ["limited", "limited for root", "filtered"])
def test_a_weaker_isolation_runs_where_it_is_named(way):
    told = without_namespaces("none", way)
    assert told.stdout.split("\n")[:2] == ["none (no walls)", "ran"], told.stderr


def test_a_script_needs_no_loop_to_learn_what_would_confine_it():
    source = textwrap.dedent("""
        from fettle.config import SandboxSettings
        from fettle.sandbox import isolation
        print(isolation(SandboxSettings(workers=1)).name)
    """)
    told = subprocess.run([sys.executable, "-c", source], text=True, capture_output=True, timeout=60)
    assert told.stdout == "namespaces\n", told.stderr
