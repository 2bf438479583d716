"""Programs run as anywhere, within their limits, and leave nothing behind."""

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
import venv
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fettle.config import SandboxSettings
from fettle.errors import ConfigError, SandboxError
from fettle.sandbox import sandbox

BEYOND_ITS_TIME = 4.0
"""Seconds, with all that a busy machine adds, within which a program of half a second must be told to have ended."""


async def test_a_program_reads_its_input_its_arguments_and_its_files(box):
    source = "import sys\nprint(input(), sys.argv[1:], open('data/in.txt').read(), __name__)"
    outcome = await box.run(source, stdin=b"hello\n", argv=["a", "b"], files={"data/in.txt": b"there"})
    assert outcome.stdout == b"hello ['a', 'b'] there __main__\n"
    assert (outcome.ending, outcome.code, outcome.stderr) == ("exited", 0, b"")
    assert outcome.isolation == "namespaces"


async def test_input_and_output_may_be_longer_than_a_pipe(box):
    text = b"x" * 200_000
    outcome = await box.run("import sys; sys.stdout.write(sys.stdin.read())", stdin=text)
    assert outcome.stdout == text


async def test_input_that_is_not_read_holds_nothing_up(box):
    assert (await box.run("print(1)", stdin=b"x" * 1_000_000)).stdout == b"1\n"


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("import sys; sys.exit(3)", 3, b""),
        ("exit()", 0, b""),
        ("raise SystemExit('no')", 1, b"no\n"),
        ("import os; os._exit(9)", 9, b""),
        ("def f(:", 1, b"SyntaxError"),
        ("def f():\n    return 1 / 0\nf()", 1, b'File "main.py", line 2, in f'),
        ("raise KeyboardInterrupt", 1, b"KeyboardInterrupt"),
    ],
)
async def test_a_program_ends_with_its_own_code(box, source, code, said):
    outcome = await box.run(source)
    assert (outcome.ending, outcome.code) == ("exited", code)
    assert said in outcome.stderr
    assert b"sandbox" not in outcome.stderr


async def test_a_program_that_a_signal_ends_was_killed(box):
    outcome = await box.run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (outcome.ending, outcome.code) == ("killed", -11)


async def test_what_python_does_at_the_end_is_done(box):
    source = """
import atexit, threading, time
atexit.register(print, "last")
threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
print("main")
"""
    assert (await box.run(source)).stdout == b"main\nthread\nlast\n"


async def test_what_programs_use_works(box):
    source = """
import asyncio, concurrent.futures, decimal, multiprocessing, sqlite3, subprocess, sys, tempfile
def square(n):
    return n * n
with multiprocessing.Pool(2) as pool:
    print(pool.map(square, [1, 2, 3]))
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(square, range(10))))
async def main():
    await asyncio.sleep(0)
    return 4
print(asyncio.run(main()))
print(subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True).stdout.strip())
with tempfile.NamedTemporaryFile() as file:
    file.write(b"six")
print(sqlite3.connect(":memory:").execute("select 6").fetchone()[0])
"""
    outcome = await box.run(source)
    assert outcome.stdout == b"[1, 4, 9]\n285\n4\n5\n6\n", outcome.stderr


async def test_packages_are_not_there(box):
    assert b"ModuleNotFoundError" in (await box.run("import pydantic")).stderr


async def test_half_a_second_is_half_a_second_and_what_was_said_is_kept(box):
    began = time.monotonic()
    outcome = await box.run("print('here', flush=True)\nwhile True: pass", seconds=0.5)
    assert outcome.ending == "timeout"
    assert outcome.stdout == b"here\n"
    assert 0.5 <= outcome.seconds < BEYOND_ITS_TIME
    assert time.monotonic() - began < 2 * BEYOND_ITS_TIME


def test_half_a_second_is_half_a_second_in_any_thread_with_a_loop_of_its_own():
    shared = sandbox(SandboxSettings(workers=2))
    endings = []
    source = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"

    def one():
        endings.append(asyncio.run(shared.run(source, seconds=0.5)).ending)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert endings == ["timeout"] * 4
    asyncio.run(shared.close())


async def test_a_child_that_keeps_the_output_open_holds_nothing_up(box):
    outcome = await box.run("import os, time\nif os.fork() == 0: time.sleep(60)\nelse: print('done')")
    assert (outcome.ending, outcome.stdout) == ("exited", b"done\n")
    assert outcome.seconds < BEYOND_ITS_TIME


async def test_a_daemon_ends_with_its_program(box):
    name = "fettle-daemon"
    source = f"""
import ctypes, os, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"{name}")
        os.write(write, b"up")
        time.sleep(60)
    os._exit(0)
print(os.read(read, 2))
"""
    assert (await box.run(source)).stdout == b"b'up'\n"
    assert processes_named(name) == []


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_flood_is_cut_off(stream):
    small = sandbox(SandboxSettings(workers=1, output_kib=16))
    outcome = await small.run(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)")
    assert outcome.ending == "output"
    assert len(getattr(outcome, stream)) == 16 * 1024
    await small.close()


async def test_limits_that_are_counted_together_are_told(box):
    forks = (
        "import os, time\nwhile True:\n    try:\n        if os.fork() == 0: time.sleep(60)\n    except OSError: pass"
    )
    assert (await box.run(forks)).ending == "processes"
    memory = """
import os, time
for _ in range(6):
    os.fork() or (bytearray(b"x") * (200 << 20), time.sleep(60))
time.sleep(60)
"""
    assert (await box.run(memory)).ending == "memory"


async def test_what_the_owner_knows_is_not_in_a_worker(monkeypatch):
    monkeypatch.setenv("API_KEY", "sk-very-secret")
    one = sandbox(SandboxSettings(workers=1, seconds=9.0))
    before = {process.pid for process in psutil.Process().children()}
    source = "import os; print(dict(os.environ), open('/proc/self/environ').read())"
    said = (await one.run(source)).stdout
    assert b"PATH" in said
    assert b"secret" not in said
    (worker,) = (each for each in psutil.Process().children() if each.pid not in before)
    workers = [worker, *worker.children(recursive=True)]
    assert len(workers) >= 2
    assert all(set(process.environ()) == {"PYTHONHASHSEED", "MALLOC_ARENA_MAX"} for process in workers)
    await one.close()


async def test_nothing_is_left_for_the_next_program(box):
    await box.run("import os; open('/tmp/note', 'w').write('x'); open('note', 'w').write('x'); os.listdir('/dev/shm')")
    source = "import os; print(os.listdir('.'), os.listdir('/dev/shm'), os.path.exists('/tmp/note'), os.getpid())"
    assert (await box.run(source)).stdout == b"['main.py'] [] False 2\n"


async def test_no_program_finds_another_in_its_memory(box):
    word = "unlikely-" + "word"
    await box.run(f"held = ['{word}'] * 10", stdin=word.encode(), files={word: b""})
    await box.calls(f"def f(x): return '{word}'", "f", [[word]])
    source = """
parts = ["unlikely", "word"]
found = 0
for line in open("/proc/self/maps"):
    first, last = (int(place, 16) for place in line.split()[0].split("-"))
    if " rw" in line and last - first < 1 << 28:
        with open("/proc/self/mem", "rb") as memory:
            memory.seek(first)
            found += memory.read(last - first).count("-".join(parts).encode())
print("found", found)
"""
    outcome = await box.run(source)
    # What it made itself to search by is all there is; a program that holds the word finds it so.
    assert int(outcome.stdout.split()[1]) <= 1, outcome.stderr
    assert int((await box.run(f"word = b'{word}' * 50\n{source}")).stdout.split()[1]) >= 50


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "main.py", "", "a/./b"])
async def test_a_file_elsewhere_is_refused(box, name):
    with pytest.raises(SandboxError, match="cannot be a file of a program"):
        await box.run("", files={name: b""})


def processes_named(name):
    return [path for path in Path("/proc").glob("[0-9]*/comm") if name in read(path)]


def read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


async def test_a_program_finds_the_packages_that_are_named_imported(box):
    done = await box.run("import pytest, sys; print(pytest.__name__, 'torch' in sys.modules)", packages=("pytest",))
    assert done.stdout == b"pytest False\n"
    done = await box.run("import pytest")
    assert b"ModuleNotFoundError" in done.stderr


async def test_a_package_that_is_not_installed_is_named(box):
    with pytest.raises(ConfigError, match="nonesuch cannot be imported for a program in the sandbox"):
        await box.run("print(1)", packages=("nonesuch",))


@contextmanager
def made(folder: Path):
    """A folder that is there until the block ends, or stays there if it was before."""
    was_there = folder.exists()
    folder.mkdir(exist_ok=True)
    yield
    if not was_there:
        folder.rmdir()


PLANTED = """
import asyncio
from fettle.sandbox import sandbox
done = asyncio.run(sandbox().run("import planted_late; print(planted_late.WORD)", packages=("planted",)))
print(done.stdout.decode(), done.stderr.decode(), end="")
"""


@pytest.mark.parametrize("below", ["/tmp", "/tmp/work", "/dev/shm"])
def test_packages_that_are_installed_where_each_job_has_folders_of_its_own_are_seen(below):
    with made(Path(below)), tempfile.TemporaryDirectory(dir=below) as name:
        venv.create(name, with_pip=False)
        [packages] = Path(name).glob("lib/python*/site-packages")
        (packages / "beside.pth").write_text("\n".join(path for path in sys.path if path))
        (packages / "planted.py").write_text("")
        (packages / "planted_late.py").write_text("WORD = 'seen'\n")
        done = subprocess.run([f"{name}/bin/python", "-c", PLANTED], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("seen", "")
