"""A process of the environment in which KServe's SDK is: it types commands and calls functions for the tests."""

import importlib
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.cli import main
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


def work() -> None:
    answers = os.fdopen(os.dup(1), "w")
    sys.argv = ["apart"]
    for line in sys.stdin:
        asked = json.loads(line)
        answer = typed(asked["typed"]) if "typed" in asked else called(asked["called"], asked["arguments"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    work()
