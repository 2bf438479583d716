"""One connection to a server: a channel with a single stream, which carries the calls of many sessions."""

import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import grpc

from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.security import Metadata

Frame = pb.StreamStepRequest
Response = pb.StreamStepResponse


class Broken(Exception):  # noqa: N818  as errors of this package are named
    """The stream ended before the call was answered: whether the server did it is not known."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(str(error))
        self.status: grpc.StatusCode = error.code()
        self.details: str = error.details() or error.code().name


class Line:
    """Calls from any thread, answered in futures of any thread.

    The stream is opened with the first call, and anew with the first one after it broke; a thread of its own reads it.
    """

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self.sessions = 0
        """Episodes that are played over it."""
        self._channel = channel
        self._metadata = tuple(metadata)
        self._open = channel.stream_stream(
            f"/{wire.ENVIRONMENTS}/StreamStep", Frame.SerializeToString, Response.FromString
        )
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._stream: _Stream | None = None

    def call(self, frame: Frame) -> "Future[Response]":
        """Send a frame, which is numbered here; its answer, or ``Broken``."""
        answer: Future[Response] = Future()
        frame.call = next(self._numbers)
        with self._lock:
            if self._stream is None or not self._stream.add(frame, answer):
                self._stream = _Stream()
                self._stream.add(frame, answer)
                self._stream.start(self._open(self._stream.frames(), metadata=self._metadata))
        return answer

    def close(self) -> None:
        """End the stream and the channel."""
        with self._lock:
            if self._stream is not None:
                self._stream.end()
        self._channel.close()


class _Stream:
    def __init__(self) -> None:
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._waiting: dict[int, Future[Response]] = {}
        self._lock = threading.Lock()
        self._broken = False

    def add(self, frame: Frame, answer: "Future[Response]") -> bool:
        """Whether there still is a stream to send it on."""
        with self._lock:
            if self._broken:
                return False
            self._waiting[frame.call] = answer
        self._frames.put(frame)
        return True

    def frames(self) -> Iterator[Frame]:
        """What is sent, read by a thread of grpc's."""
        return iter(self._frames.get, None)

    def start(self, call: "grpc.Call") -> None:
        threading.Thread(target=self._read, args=(call,), name="fettle-remote", daemon=True).start()

    def end(self) -> None:
        self._frames.put(None)

    def _read(self, call: "grpc.Call") -> None:
        try:
            for response in call:
                waiting = self._waiting.pop(response.call, None)
                if waiting is not None:
                    _give(waiting, response)
            error: grpc.RpcError = call  # a stream that ended in order is a call with the status OK
        except grpc.RpcError as raised:
            error = raised
        self._break(Broken(error))

    def _break(self, broken: Broken) -> None:
        with self._lock:
            self._broken = True
            waiting, self._waiting = self._waiting, {}
        self.end()
        for answer in waiting.values():
            if answer.set_running_or_notify_cancel():
                answer.set_exception(broken)


def _give(waiting: "Future[Response]", response: Response) -> None:
    if waiting.set_running_or_notify_cancel():  # unless who waited has gone
        waiting.set_result(response)
