"""Calling functions on a worker: one that nobody vouches for, or an installed one that is given such text."""

import json
import math
import secrets
import socket
import time
from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Any, NoReturn

from pydantic import JsonValue

from fettle.errors import ScorerError, ScorerTimeout
from fettle.sandbox.inside.wire import readable
from fettle.sandbox.outcome import Died, Raised, Reply, Timeout, Value
from fettle.sandbox.worker import Worker

TOGETHER = 4
"""All calls of a function may take so many times as long as one of them."""
_PIECE = 1 << 16
_HALF = b"\\ud"
"""How JSON writes either half of a pair of surrogates."""


class _Silence(Exception):  # noqa: N818  no error: there is no answer, and this says why
    """No answer came: the time is up, or nobody is left to give one."""

    def __init__(self, reply: Timeout | Died) -> None:
        super().__init__(str(reply))
        self.reply = reply


def calls(
    worker: Worker, source: str, function: str, arguments: Sequence[Sequence[JsonValue]], seconds: float, output: int
) -> list[Reply]:
    """What came of each call, in the order given, though they are made in another.

    A process answers one call after another and is told of a call only when it is its turn; after one that it does not
    answer, the rest go to a new process.

    Raises:
        SandboxError: a process could not be begun, or the worker is gone.
    """
    replies: dict[int, Reply] = {}
    waiting = deque(_order(source, arguments))
    end = time.monotonic() + TOGETHER * seconds
    while waiting:
        left = end - time.monotonic()
        if left <= 0:
            replies.update(dict.fromkeys(waiting, Timeout()))
            break
        control = worker.begin({"kind": "calls", "source": source, "function": function}, left)
        with control:
            answers = _Answers(control, output)
            while waiting:
                index = waiting.popleft()
                replies[index] = answers.to(arguments[index], min(end, time.monotonic() + seconds))
                if not answers.more:
                    break
        worker.end(stop=True)
    return [replies[index] for index in range(len(arguments))]


def _order(source: str, arguments: Sequence[Sequence[JsonValue]]) -> list[int]:
    """The same each time, and not to be known from within: it depends on calls that are still to come."""
    told = sha256(json.dumps([source, *map(list, arguments)]).encode()).hexdigest()
    order = list(range(len(arguments)))
    Random(f"calls/{told}").shuffle(order)
    return order


class _Answers:
    """What a process says, of which nothing is believed but that it is a value."""

    def __init__(self, control: socket.socket, most: int) -> None:
        self._control = control
        self._most = most
        self._buffer = b""
        self.more = True
        """Whether the process may be asked again."""

    def to(self, arguments: Sequence[JsonValue], end: float) -> Reply:
        """What came of one call."""
        name = secrets.token_hex(8)
        try:
            self._control.settimeout(max(0.001, end - time.monotonic()))
            self._control.sendall(json.dumps({"id": name, "arguments": list(arguments)}).encode() + b"\n")
            line = self.line(end)
        except TimeoutError:
            reply: Reply = Timeout()
        except OSError:
            reply = Died()
        except _Silence as silence:
            reply = silence.reply
        else:
            reply = _reply(line, name)
            # Whatever comes unasked was not said by the function's return.
            if self._buffer or isinstance(reply, Died):
                reply = Died()
        self.more = isinstance(reply, Value | Raised)
        return reply

    def line(self, end: float) -> bytes:
        """The next line that is said until then."""
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not readable(self._control, left):
                raise _Silence(Timeout())
            piece = self._control.recv(_PIECE)
            if not piece or len(self._buffer) > self._most:
                raise _Silence(Died())
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _reply(line: bytes, name: str) -> Reply:
    """A line as a reply; one that is none, or answers another call, is as good as no answer."""
    try:
        said = _strictly(line)
        if not isinstance(said, dict) or said.pop("id", None) != name or len(said) != 1:
            return Died()
        if "value" in said:
            return Value(said["value"])
        kind, message = said["raised"]
        return Raised(str(kind), str(message))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Died()


def _strictly(line: bytes) -> Any:
    """JSON as it is defined: no number that is none, and no text that cannot be written."""
    found = json.loads(line.decode(), parse_constant=_refused, parse_float=_finite)
    if _HALF in line.lower():  # or whole ones, which are well
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def trusted(
    worker: Worker,
    function: str,
    arguments: Sequence[JsonValue],
    seconds: float,
    output: int,
    packages: Sequence[str] = (),
) -> JsonValue:
    """What an installed function returns, in a process that is gone afterwards; it finds ``packages`` imported.

    Raises:
        ScorerError: it cannot be imported, or fails.
        ScorerTimeout: it takes longer than ``seconds``.
        SandboxError: the process could not be begun, or the worker is gone.
    """
    module, _, name = function.partition(":")
    for each in (module, *packages):
        if (failed := worker.bring(each)) is not None:
            raise ScorerError(f"{each} cannot be imported in the sandbox: {failed}")
    spec = {"kind": "trusted", "function": function, "arguments": list(arguments)}
    with worker.begin(spec, seconds) as control:
        try:
            answer = _strictly(_Answers(control, output).line(time.monotonic() + seconds))
            reply: Reply = Raised(*answer["raised"]) if "raised" in answer else Value(answer["value"])
        except _Silence as silence:
            reply = silence.reply
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reply = Raised(type(error).__name__, str(error))
    worker.end(stop=True)
    if isinstance(reply, Value):
        return reply.value
    if isinstance(reply, Timeout):
        raise ScorerTimeout(f"{name} of {module} did not answer within {seconds:g} s")
    why = f"{reply.type}: {reply.message}" if isinstance(reply, Raised) else "its process ended"
    raise ScorerError(f"{name} of {module} failed: {why}")
