"""What the second process of a job does: run a program, answer calls of a function, or score with an installed one.

By now it is confined. It is told what to do over its control socket, and from its first word on, an ``R``, it may be
running what nobody vouches for: nothing that it says later is more than a value.
"""

import atexit
import builtins
import gc
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fettle.sandbox.inside.wire import Ended, exactly

MAIN = "main.py"
"""The file of the program that is run."""
LONGEST_MESSAGE = 500
_NOTHING_TO_SAY = 70

Spec = dict[str, Any]


def main(control: socket.socket) -> None:
    """Do as the control socket says, and end this process."""
    code = 1
    try:
        gc.enable()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        spec = _frame(control)
        code = _KINDS[spec["kind"]](spec, control)
    except Ended:
        code = _NOTHING_TO_SAY
    except BaseException:  # noqa: BLE001  the last of this process: it is told as any program's own
        traceback.print_exc()
    os._exit(code)


def _frame(control: socket.socket) -> Spec:
    size = struct.unpack(">Q", exactly(control, 8))[0]
    spec: Spec = json.loads(exactly(control, size))
    return spec


# --- a program ------------------------------------------------------------------------------------


def _run(spec: Spec, control: socket.socket) -> int:
    """The source as ``__main__``, in the folder that holds its files."""
    folder = Path.cwd()
    source = spec["source"].encode("utf-8", "surrogatepass")
    try:
        for name, data in spec["files"].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data.encode("latin-1"))
        (folder / MAIN).write_bytes(source)
    except OSError as error:
        control.sendall(f"Fits files could not be written ({error.strerror}): raise disk_mib of the sandbox".encode())
        return 1
    sys.argv = [MAIN, *spec["argv"]]
    sys.path.insert(0, str(folder))
    _open_streams()
    control.sendall(b"R")
    control.close()
    return _ended(lambda: exec(compile(source, MAIN, "exec"), _main_module(MAIN).__dict__))


def _open_streams() -> None:
    """New ones: those of the worker know what its own streams were."""
    how = partial(open, encoding="utf-8", closefd=False)
    sys.stdin = how(0, errors="surrogateescape")
    sys.stdout = how(1, "w", errors="surrogateescape")
    sys.stderr = how(2, "w", buffering=1, errors="backslashreplace")


def _main_module(file: str | None = None) -> types.ModuleType:
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    if file is not None:
        module.__file__ = file
    sys.modules["__main__"] = module
    return module


def _ended(program: Callable[[], None]) -> int:
    """The exit code, after everything that Python does at the end of a program."""
    code = _code_of(program)
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does at its end
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  as the interpreter: told, and no longer anybody's to catch
        traceback.print_exc()
        code = code or 120
    return code


def _code_of(program: Callable[[], None]) -> int:
    try:
        program()
    except SystemExit as end:
        if end.code is None:
            return 0
        if isinstance(end.code, int):
            return int(end.code) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001  the program's own: told as the interpreter would
        error.__traceback__ = _outside_of_us(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _outside_of_us(trace: types.TracebackType | None) -> types.TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


# --- calls of a function --------------------------------------------------------------------------


def _calls(spec: Spec, control: socket.socket) -> int:
    """Define the function, then answer one call after another with what it returns.

    What answers is kept apart from what the source may reach by name: its own copies of the functions it needs, and the
    standard streams lead nowhere.
    """
    loads, dumps = json.loads, json.dumps
    control.sendall(b"R")
    stream = control.makefile("rwb")
    failed, function = None, None
    try:
        names = _main_module().__dict__
        names["__name__"] = "solution"
        exec(compile(spec["source"], "solution.py", "exec"), names)
        function = names[spec["function"]]
    except BaseException as error:  # noqa: BLE001  it is the answer to every call
        failed = _raised(error)
    while line := stream.readline():
        call = loads(line)
        answer = f'"raised": {dumps(failed)}' if failed else _answer(function, call["arguments"], dumps)
        stream.write(f'{{"id": "{call["id"]}", {answer}}}\n'.encode())
        stream.flush()
    return 0


def _answer(function: Any, arguments: list[Any], dumps: Callable[..., str]) -> str:
    """A member of a JSON object: the value, or what was raised instead."""
    try:
        value = function(*arguments)
        return f'"value": {dumps(value, allow_nan=False)}'
    except BaseException as error:  # noqa: BLE001  it is the answer
        return f'"raised": {dumps(_raised(error))}'


def _raised(error: BaseException) -> list[str]:
    try:
        message = str(error)[:LONGEST_MESSAGE].encode("utf-8", "replace").decode()
        return [type(error).__name__, message]
    except BaseException:  # noqa: BLE001  an exception that cannot be told is told by its name
        return [type(error).__name__, ""]


# --- an installed function ------------------------------------------------------------------------


def _trusted(spec: Spec, control: socket.socket) -> int:
    """Call an installed function, whose module the worker imported, and say what it returned."""
    module, _, name = spec["function"].partition(":")
    control.sendall(b"R")
    answer = _answer(lambda *arguments: getattr(sys.modules[module], name)(*arguments), spec["arguments"], json.dumps)
    control.sendall(f"{{{answer}}}\n".encode())
    return 0


_KINDS: dict[str, Callable[[Spec, socket.socket], int]] = {"run": _run, "calls": _calls, "trusted": _trusted}
