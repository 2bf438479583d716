"""A Python interpreter for a policy: each program runs in the sandbox, and is gone when it ends."""

from fettle.environments.tools.tool import Tool, tool
from fettle.sandbox import Outcome, Sandbox

ENDED = {
    "timeout": "it took too long",
    "memory": "it used too much memory",
    "output": "it wrote too much",
    "processes": "it started too many processes",
    "killed": "a signal ended it",
}


def python(box: Sandbox) -> Tool:
    """The tool ``python``, whose programs run in ``box``."""

    async def run(code: str) -> str:
        """Runs a Python program, and tells what it printed. Nothing is kept from one program to the next."""
        return _told(await box.run(code))

    return tool(run, "python")


def _told(outcome: Outcome) -> str:
    printed = outcome.stdout.decode(errors="replace").rstrip()
    if outcome.ending != "exited":
        return f"{printed}\nThe program was stopped: {ENDED[outcome.ending]}.".lstrip()
    if outcome.code:
        complaint = outcome.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {outcome.code}"]
        return f"{printed}\n{complaint[0]}".lstrip()
    return printed or "Nothing was printed."
