"""Asking something that may fail, hang or not answer in time, without ever waiting for it longer than was allowed."""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from queue import SimpleQueue
from typing import Generic, TypeVar

from fettle.errors import DataError, FettleError, TimeoutError

logger = logging.getLogger(__name__)

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class UnansweredError(Exception):
    """There is no answer; the message says why."""


class Guard(Generic[Question, Answer]):
    """One thread answers. Once an answer fails or is late, nobody is sent there for ``retry_s``, then one is.

    A question that cannot be answered for its own fault (``DataError``) is no failure of whoever answers, and no proof
    that whoever failed before is mended.
    """

    def __init__(self, answer: Callable[[Question], Answer], *, time_limit_s: float, retry_s: float) -> None:
        self._answer = answer
        self._time_limit_s, self._retry_s = time_limit_s, retry_s
        self.alerts = 0
        """How often a new reason for failing was logged."""
        self._begin()

    def _begin(self) -> None:
        """As it is before the first question."""
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._questions: SimpleQueue[tuple[Question, Future[Answer]] | None] = SimpleQueue()
        self._asked = self._judged = 0
        """Numbers of questions: the last that was sent, and the last that said how things stand."""
        self._trying: int | None = None
        """The question that was sent to see whether it fails still."""
        self._late: Future[Answer] | None = None
        self._reason: str | None = None
        self._retry_at = 0.0

    def ask(self, question: Question, *, within_s: float | None = None) -> Answer:
        """The answer, at most ``within_s`` later, or else ``time_limit_s``.

        Raises:
            UnansweredError: there is none.
        """
        limit = min(self._time_limit_s if within_s is None else within_s, threading.TIMEOUT_MAX)
        number, future = self._sent(question)
        try:
            # Not ``result``: what ends a thread of its own, as SystemExit does, must not end whoever asks.
            error = future.exception(limit)
        except NotYetError:
            future.cancel()  # one that is still in the queue need not be answered any more
            late = TimeoutError(f"it took longer than {limit:g} s").message
            raise UnansweredError(self._failed(number, late, future)) from None
        if error is None:
            self._mended(number)
            return future.result()
        if isinstance(error, DataError):
            self._proved_nothing(number)
            raise UnansweredError(error.message) from error
        raise UnansweredError(self._failed(number, _reason(error), None)) from error

    def close(self) -> None:
        """Let the thread end once it has answered."""
        self._see_to_forks()
        with self._turn:
            if self._thread is not None:
                self._questions.put(None)
                self._thread = None

    def _see_to_forks(self) -> None:
        """A process that was forked has no such thread, and another's lock may be held there for good."""
        if os.getpid() != self._process:
            self._begin()

    def _sent(self, question: Question) -> "tuple[int, Future[Answer]]":
        """The question on its way, and its number, unless there was a failure lately."""
        self._see_to_forks()
        with self._turn:
            now = time.monotonic()
            hangs = self._late is not None and not self._late.done()
            if self._reason is not None and (hangs or now < self._retry_at):
                raise UnansweredError(self._reason)
            self._retry_at = now + self._retry_s  # while one tries again, the others do not
            self._asked += 1
            self._trying = None if self._reason is None else self._asked
            future: Future[Answer] = Future()
            if self._thread is None:
                self._questions = SimpleQueue()
                self._thread = threading.Thread(target=self._work, args=(self._questions,), daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:  # the system has no more threads to give
                    self._thread = None
                    future.set_exception(error)
                    return self._asked, future
            self._questions.put((question, future))
            return self._asked, future

    def _work(self, questions: "SimpleQueue[tuple[Question, Future[Answer]] | None]") -> None:
        while (asked := questions.get()) is not None:
            question, future = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._answer(question))
            except BaseException as error:  # noqa: BLE001  whoever waits is told
                future.set_exception(error)

    def _failed(self, number: int, reason: str, late: "Future[Answer] | None") -> str:
        """The reason, which is why nobody is sent there for a while, unless a later question was answered by now."""
        with self._turn:
            if late is not None and not late.done():
                self._late = late
            if number < self._judged:
                return reason
            new = reason != self._reason
            self.alerts += new
            self._judged, self._reason = number, reason
            self._retry_at = time.monotonic() + self._retry_s
        if new:  # not while the lock is held: whoever reads the log may be slow, and the others would wait for him
            logger.error("the routing policy is not used, and the fixed mode is taken: %s", reason)
        return reason

    def _mended(self, number: int) -> None:
        """Nothing is wrong, unless a later question has failed by now."""
        with self._turn:
            if number < self._judged:
                return
            before = self._reason
            self._judged, self._reason, self._late = number, None, None
        if before is not None:
            logger.warning("the routing policy is used again; before: %s", before)

    def _proved_nothing(self, number: int) -> None:
        """Where this question was to see whether it fails still, the next one is."""
        with self._turn:
            if number == self._trying:
                self._retry_at = time.monotonic()


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, FettleError) else f"it failed ({type(error).__name__}: {error})"
