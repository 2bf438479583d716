"""A process of the environment in which KServe's SDK is: it types commands and calls functions for the tests."""

import asyncio
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.cli import main
from fettle.deploy.sdk import sdk
from fettle.errors import FettleError

ROOT = Path(__file__).parents[3]
PACKAGES = Path(sys.prefix) / "kserve"
"""Where ``./run setup`` puts what the SDK needs and nothing else here does."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What it said of its failure, in one line."""
        assert self.err.startswith("fettle: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("fettle: ").strip()


def environment(**more: str) -> dict[str, str]:
    """As ``./run fettle deploy`` has it."""
    return {**os.environ, "PYTHONPATH": f"{PACKAGES}{os.pathsep}{ROOT}", **more}


class Apart:
    """The process. It knows no cluster but those that a command names."""

    def __init__(self, folder: Path) -> None:
        env = environment(HOME=str(folder), KUBECONFIG=str(folder / "none"))
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=folder
        )

    def fettle(self, *arguments: object) -> Ended:
        """What comes of typing ``fettle`` and the arguments."""
        return Ended(*self._asked({"typed": list(map(str, arguments))}))

    def call(self, name: str, *arguments: object) -> Any:
        """What a function returns; the message of an error of ours, if it raises one."""
        return self._asked({"called": name, "arguments": arguments})

    def predictor(self, log: Path, *options: object) -> tuple[int, int]:
        """The id of a process that types ``fettle deploy predictor``, and the port that it listens on."""
        process, port = self._asked({"predictor": list(map(str, options)), "log": str(log)})
        return process, port

    def code(self, process: int, *, wait: bool = False) -> int | None:
        """How a predictor ended; None while it goes on."""
        return self._asked({"ended": process, "wait": wait})

    def _asked(self, what: dict[str, object]) -> Any:
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def typed(arguments: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["fettle", *arguments]
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def called(name: str, arguments: list[object]) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)(*arguments)
    except FettleError as error:
        return error.message


def predictor(options: list[str], log: str) -> tuple[int, int]:
    """Forked once everything is imported, which takes most of a start: and a port that is free now stays free."""
    with sdk():
        importlib.import_module("fettle.cli.predicting")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = os.fork()
    if process:
        return process, port
    for output in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), output)
    os.close(0)
    asyncio.set_event_loop_policy(None)  # as in a process that has run none
    sys.argv = ["fettle", "deploy", "predictor", *options, "--port", str(port)]
    try:
        main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:  # noqa: BLE001  nothing of the parent's is to run here
        traceback.print_exc()
    os._exit(1)


def ended(process: int, wait: bool) -> int | None:
    found, status = os.waitpid(process, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def work() -> None:
    answers = os.fdopen(os.dup(1), "w")
    sys.argv = ["apart"]
    for line in sys.stdin:
        match json.loads(line):
            case {"typed": arguments}:
                answer: Any = typed(arguments)
            case {"called": name, "arguments": arguments}:
                answer = called(name, arguments)
            case {"predictor": options, "log": log}:
                answer = predictor(options, log)
            case {"ended": process, "wait": wait}:
                answer = ended(process, wait)
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # what was imported takes seconds to be taken down


if __name__ == "__main__":
    work()
