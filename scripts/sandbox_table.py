"""The attacks that the sandbox must stop, and a table of what became of each.

Every attack is a program that says THROUGH once it has done what it must not. None changes anything that outlives it,
even where nothing stops it; those that would are tried in the sandbox alone. ``python scripts/sandbox_table.py`` runs
each without walls, to see that it works, and in the sandbox, and prints the table of ``docs/sandbox.md``.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fettle.config import SandboxSettings
from fettle.sandbox import Outcome, Sandbox, sandbox

THROUGH = b"THROUGH"
LIMITS = {"memory_mib": 128, "processes": 16, "disk_mib": 16, "seconds": 30.0, "workers": 1}
STRICT = SandboxSettings(isolation="strongest", **LIMITS)  # type: ignore[arg-type]
OPEN = SandboxSettings(isolation="none", **LIMITS)  # type: ignore[arg-type]


class Attack(NamedTuple):
    """A program that says THROUGH when it got through."""

    name: str
    source: str
    control: str = "anyone"
    """Whose attempt without walls shows that it works: anyone's, root's, or nobody's, since it would harm."""


_START = """
import ctypes, os, socket, stat, struct, sys, threading, time
bait = dict(word.split("=", 1) for word in sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def through(yes=True):
    if yes:
        print("THROUGH", flush=True)

def call(number, *arguments):
    # A call that the kernel knows, and lets this program make, fails for other reasons than these.
    result = libc.syscall(number, *arguments)
    return result >= 0 or ctypes.get_errno() not in (1, 13, 38)
"""
"""What every attack begins with: what it is told of the machine, and how it says that it got through."""

_FORKS = """
children = []
try:
    for _ in range(100):
        child = os.fork()
        if child == 0:
            time.sleep({seconds})
            os._exit(0)
        children.append(child)
finally:
    through(len(children) == 100)
"""
_STATUS = """
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
"""


def _socket(arguments: str) -> str:
    return f"socket.socket({arguments})\nthrough()"


def _call(number: str, *arguments: str) -> str:
    return f"through(call({', '.join([number, *arguments])}))"


ATTACKS = (
    # --- resources
    Attack("fork bomb", _FORKS.format(seconds=1)),
    Attack("zombies", _FORKS.format(seconds=0)),
    Attack(
        "threads",
        "threads = [threading.Thread(target=time.sleep, args=(1,)) for _ in range(100)]\n"
        "for thread in threads: thread.start()\nthrough()",
    ),
    Attack("memory of one process", "held = bytearray(b'x') * (400 << 20)\nthrough()"),
    Attack(
        "memory of many processes",
        "read, write = os.pipe()\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        held = bytearray(b'x') * (60 << 20)\n        os.write(write, b'x')\n        time.sleep(30)\n"
        "        os._exit(0)\nos.close(write)\ncount = 0\nwhile count < 8 and os.read(read, 1): count += 1\n"
        "through(count == 8)",
    ),
    Attack(
        "memory file",
        "file = os.memfd_create('x')\nfor _ in range(300): os.write(file, bytes(1 << 20))\nthrough()",
    ),
    Attack(
        "shared memory",
        "import mmap\nheld = [mmap.mmap(-1, 60 << 20) for _ in range(6)]\n"
        "for each in held:\n    for place in range(0, len(each), 4096): each[place] = 1\nthrough()",
    ),
    Attack(
        "shared memory that is let go",
        "import mmap\nheld = []\nfor _ in range(6):\n"
        "    part = mmap.mmap(-1, 60 << 20)\n    for place in range(0, len(part), 4096): part[place] = 1\n"
        "    start = ctypes.addressof(ctypes.c_char.from_buffer(part))\n"
        "    libc.munmap(ctypes.c_void_p(start + 4096), ctypes.c_size_t(len(part) - 4096))\n    held.append(part)\n"
        "through()",
    ),
    Attack(
        "attributes of files",
        "open('x', 'w').close()\nfor n in range(1000): os.setxattr('x', f'user.{n}', bytes(60_000))\nthrough()",
        "nobody",
    ),
    Attack("disk, one file", "open('x', 'wb').write(bytes(40 << 20))\nthrough()"),
    Attack("disk, many files", "for n in range(40): open(f'x{n}', 'wb').write(bytes(1 << 20))\nthrough()"),
    Attack("inodes", "for n in range(6000): open(f'x{n}', 'w').close()\nthrough()"),
    Attack(
        "processor, deaf to signals",
        "import signal\nfor n in range(1, 64):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nend = time.time() + 20\nwhile time.time() < end: pass\nthrough()",
        "nobody",
    ),
    # --- secrets
    Attack("password file", "open('/etc/shadow').read()\nthrough()", "root"),
    Attack("a secret in a file", "through('secret' in open(bait['file']).read())"),
    Attack("a secret in the environment", "through(bait['name'] in os.environ)", "nobody"),
    Attack(
        "a secret in another's environment",
        "for name in os.listdir('/proc'):\n    if name.isdigit():\n        try:\n"
        "            if bait['name'].encode() in open(f'/proc/{name}/environ', 'rb').read(): through(); break\n"
        "        except OSError: pass",
    ),
    Attack("the root of another process", "open(f\"/proc/{bait['victim']}/root{bait['file']}\").read()\nthrough()"),
    Attack("the first process's memory", "open(f'/proc/{os.getppid()}/mem', 'rb')\nthrough()", "root"),
    Attack("devices", "through(set(os.listdir('/dev')) - {'null', 'zero', 'full', 'random', 'urandom', 'shm'})"),
    Attack("a symbolic link", "os.symlink(bait['file'], 'link')\nopen('link').read()\nthrough()"),
    Attack("a hard link", "os.link(bait['file'], bait['file'] + '-link')\nthrough()"),
    # --- the machine
    Attack("a file elsewhere", "open(bait['file'] + '-new', 'w').close()\nthrough()"),
    Attack("a file of the library", "open(os.__file__, 'r+').close()\nthrough()", "root"),
    Attack(
        "a file that gives rights",
        "open('x', 'w').close()\nos.chmod('x', 0o4755)\nthrough(not os.statvfs('x').f_flag & os.ST_NOSUID)",
    ),
    Attack("a device of its own", "os.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0))\nthrough()", "root"),
    Attack("another's end", "os.kill(int(bait['victim']), 9)\nthrough()"),
    Attack("everybody's end", "os.kill(-1, 9)\nthrough(not os.path.exists('/proc/1'))", "nobody"),
    Attack("its parent's end", "os.kill(os.getppid(), 9)\ntime.sleep(0.2)\nthrough(os.getppid() == 0)", "nobody"),
    Attack("tracing another", "through(libc.ptrace(16, int(bait['victim']), None, None) == 0)", "root"),
    Attack("tracing its child", "through(libc.ptrace(0, 0, None, None) == 0)"),
    # --- the network
    Attack("TCP to this machine", "socket.create_connection(('127.0.0.1', int(bait['tcp'])), 2)\nthrough()"),
    Attack(
        "UDP to this machine",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', int(bait['tcp'])))\nthrough()",
    ),
    Attack("an abstract socket", "socket.socket(socket.AF_UNIX).connect('\\0' + bait['abstract'])\nthrough()"),
    Attack("a socket by path", "socket.socket(socket.AF_UNIX).connect(bait['path'])\nthrough()"),
    Attack(
        "datagrams to a path",
        "one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "one.sendto(b'x', bait['datagrams'])\nthrough()",
    ),
    Attack("a netlink socket", _socket("16, socket.SOCK_RAW, 0")),
    Attack("a packet socket", _socket("17, socket.SOCK_RAW, 0"), "root"),
    Attack("a socket of the kernel's ciphers", _socket("38, socket.SOCK_SEQPACKET, 0"), "nobody"),
    Attack("a socket to the host of a machine", _socket("40, socket.SOCK_STREAM, 0"), "nobody"),
    # --- the kernel
    Attack("a user namespace", "through(libc.unshare(0x10000000) == 0)"),
    Attack("a mount namespace", "through(libc.unshare(0x20000) == 0)", "root"),
    Attack("a namespace by clone", "through(libc.syscall(56, 0x10000011, 0, 0, 0, 0) >= 0)", "nobody"),
    Attack("another's namespace", _call("308", "os.open('/proc/self/ns/uts', 0)", "0"), "root"),
    Attack("a process by descriptor", _call("434", "os.getpid()", "0")),
    Attack("descriptors left over", "through([n for n in os.listdir('/proc/self/fd') if int(n) > 3])", "nobody"),
    Attack("the clock", "time.clock_settime(time.CLOCK_REALTIME, time.time())\nthrough()", "nobody"),
    Attack("rights left over", _STATUS + "through(int(lines['CapEff'], 16) or int(lines['CapBnd'], 16))", "root"),
    Attack("rights by executing", _STATUS + "through(lines['NoNewPrivs'].strip() == '0')"),
    Attack("system calls unfiltered", _STATUS + "through(lines['Seccomp'].strip() != '2')"),
    # Where nothing stops it, it happens in a mount namespace of its own, on its own folder, and goes with it.
    Attack(
        "mount",
        "libc.unshare(0x20000) or libc.mount(None, b'/', None, ctypes.c_ulong(1 << 18 | 1 << 14), None)\n"
        "through(libc.mount(b'x', os.getcwd().encode(), b'tmpfs', ctypes.c_ulong(0), None) == 0)",
        "root",
    ),
    Attack("chroot", "os.chroot('.')\nthrough()", "root"),
    Attack("the machine's name", "socket.sethostname(socket.gethostname())\nthrough()", "root"),
    Attack("bpf", _call("321", "5", "ctypes.create_string_buffer(128)", "128"), "root"),
    Attack("perf_event_open", _call("298", "ctypes.create_string_buffer(128)", "0", "-1", "-1", "0"), "root"),
    Attack("io_uring", _call("425", "1", "ctypes.create_string_buffer(128)")),
    Attack("keyctl", _call("250", "0", "-3", "0", "0", "0")),
    Attack("userfaultfd", _call("323", "0"), "root"),
    Attack("process_vm_readv", _call("310", "os.getpid()", "None", "0", "None", "0", "0")),
    Attack(
        "memory shared by key",
        "key = libc.shmget(0, ctypes.c_size_t(4096), 0o600)\nthrough(key >= 0 and libc.shmctl(key, 0, None) == 0)",
    ),
    Attack("a message queue", "key = libc.msgget(0, 0o600)\nthrough(key >= 0 and libc.msgctl(key, 0, None) == 0)"),
    Attack("calls of another interface", "through(libc.syscall(0x40000000 | 39) > 0)", "nobody"),
)
"""Numbers of system calls are those of x86_64; on other processors those rows mean other calls, and say nothing."""


@contextlib.contextmanager
def surroundings() -> Iterator[list[str]]:
    """What attacks are after: a secret, servers on this machine, and a process; how they are told of it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bait-")))
        folder.chmod(0o777)
        secret = folder / "secret.txt"
        secret.write_text("secret")
        secret.chmod(0o644)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract, path = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(str(folder / "datagrams"))
        abstract.bind(f"\0fettle-bait-{os.getpid()}")
        path.bind(str(folder / "socket"))
        for server in (abstract, path):
            server.listen()
        name = f"FETTLE_BAIT_{os.getpid()}"
        victim = subprocess.Popen(["sleep", "300"], env={name: "secret"})
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        told = {"file": secret, "tcp": tcp.getsockname()[1], "abstract": f"fettle-bait-{os.getpid()}"}
        told |= {"path": folder / "socket", "datagrams": folder / "datagrams"}
        told |= {"name": name, "victim": victim.pid}
        yield [f"{key}={value}" for key, value in told.items()]


async def attempted(where: Sandbox, attack: Attack, told: list[str]) -> Outcome:
    """What became of an attack."""
    return await where.run(_START + attack.source, argv=told, seconds=3.0 if "signals" in attack.name else None)


def works_for(attack: Attack) -> bool:
    """Whether it can be tried without walls here, and then gets through."""
    return attack.control == "anyone" or (attack.control == "root" and os.geteuid() == 0)


def _became(outcome: Outcome) -> str:
    if THROUGH in outcome.stdout:
        return "**through**"
    words = outcome.stderr.decode(errors="replace").strip().splitlines()
    why = {"exited": words[-1].split(":")[0] if words else "", "killed": "killed"}.get(outcome.ending, outcome.ending)
    return f"stopped ({why})" if why else "stopped"


async def table() -> int:
    """Print the table; how many got through."""
    strict, open_ = sandbox(STRICT), sandbox(OPEN)
    print(f"Isolation: {strict.isolation()}.\n")
    print("| Attack | Without walls | In the sandbox |\n|---|---|---|")
    failed = 0
    for attack in ATTACKS:
        with surroundings() as told:
            control = _became(await attempted(open_, attack, told)) if works_for(attack) else "not tried"
        with surroundings() as told:
            became = _became(await attempted(strict, attack, told))
        failed += "through" in became
        print(f"| {attack.name} | {control.replace('*', '')} | {became} |", flush=True)
    await strict.close()
    await open_.close()
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(table()))
