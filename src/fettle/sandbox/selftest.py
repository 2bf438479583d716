"""What a worker must show before it is given work: that programs run in it, and that its walls stand."""

import json
from types import MappingProxyType

from fettle.errors import SandboxError
from fettle.sandbox.programs import run, specification
from fettle.sandbox.worker import Worker

_SECONDS, _OUTPUT = 20.0, 1 << 16

_CONTROL = r"""
import os, threading

with open("note.txt", "w") as file:
    file.write("here")
heard = []
thread = threading.Thread(target=lambda: heard.append(open("note.txt").read()))
thread.start()
thread.join()
child = os.fork()
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(*heard)
"""

_PROBES = MappingProxyType(
    {
        "wrote outside of its folder": "open('/etc/passwd', 'a')",
        "saw the machine's files": "import os; os.stat('/sys/kernel')",
        "saw processes of others": "import os; assert len([1 for name in os.listdir('/proc') if name.isdigit()]) > 2",
        "found rights": "assert 'NoNewPrivs:\\t1\\n' not in text or 'CapEff:\\t0000000000000000\\n' not in text",
    }
)
"""Each succeeds only where a wall is missing."""
_CALLS = MappingProxyType(
    {
        "opened a socket": "import socket; socket.socket()",
        "made a user namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    }
)
"""As those, where system calls are filtered."""


def examine(worker: Worker) -> None:
    """Try a worker that says it confines by namespaces; one that does not is only to run programs at all.

    Raises:
        SandboxError: it does not run what it should, or lets through what it should not.
    """
    _require(worker, _CONTROL, "here", "does not run programs")
    if worker.isolation != "namespaces":
        return
    attempts = {**_PROBES, **_CALLS} if "seccomp" in worker.walls else _PROBES
    probes = [_probe(what, attempt) for what, attempt in attempts.items()]
    source = "\n".join(["text = open('/proc/self/status').read()", "through = []", *probes, "print(through)"])
    _require(worker, source, "[]", "lets through what it should not")


def _probe(what: str, attempt: str) -> str:
    return f"try:\n    {attempt}\n    through.append({what!r})\nexcept (OSError, AssertionError):\n    pass"


def _require(worker: Worker, source: str, wanted: str, otherwise: str) -> None:
    outcome = run(worker, specification(source, {}, ()), b"", _SECONDS, _OUTPUT)
    said = outcome.stdout.decode(errors="replace").strip()
    if outcome.ending != "exited" or outcome.code != 0 or said != wanted:
        what = json.dumps([outcome.ending, outcome.code, said[:500], outcome.stderr.decode(errors="replace")[-500:]])
        raise SandboxError(f"the sandbox {otherwise} ({what}), so nothing is run in it")
