"""Asking something that may fail, hang or not answer in time, without ever waiting for it longer than was allowed."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
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

    A question that cannot be answered for its own fault (``DataError``) is no failure of whoever answers.
    """

    def __init__(self, answer: Callable[[Question], Answer], *, time_limit_s: float, retry_s: float) -> None:
        self._answer = answer
        self._time_limit_s, self._retry_s = time_limit_s, retry_s
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._questions: SimpleQueue[tuple[Question, Future[Answer]] | None] = SimpleQueue()
        self._late: Future[Answer] | None = None
        self._reason: str | None = None
        self._retry_at = 0.0
        self.alerts = 0
        """How often a new reason for failing was logged."""

    def ask(self, question: Question, *, within_s: float | None = None) -> Answer:
        """The answer, at most ``within_s`` later, or else ``time_limit_s``.

        Raises:
            UnansweredError: there is none.
        """
        limit = self._time_limit_s if within_s is None else within_s
        future = self._sent(question)
        try:
            answer = future.result(limit)
        except DataError as error:
            raise UnansweredError(error.message) from error
        except Exception as error:
            late = not future.done()
            raise UnansweredError(
                self._failed(_reason(error, limit if late else None), future if late else None)
            ) from error
        self._mended()
        return answer

    def close(self) -> None:
        """Let the thread end once it has answered."""
        with self._turn:
            if self._thread is not None:
                self._questions.put(None)
                self._thread = None

    def _sent(self, question: Question) -> "Future[Answer]":
        """The question on its way, unless there was a failure lately."""
        with self._turn:
            now = time.monotonic()
            hangs = self._late is not None and not self._late.done()
            if self._reason is not None and (hangs or now < self._retry_at):
                raise UnansweredError(self._reason)
            self._retry_at = now + self._retry_s  # while one tries again, the others do not
            future: Future[Answer] = Future()
            if self._thread is None or not self._thread.is_alive():  # a process that was forked has no such thread
                self._questions = SimpleQueue()
                self._thread = threading.Thread(target=self._work, args=(self._questions,), daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:  # the system has no more threads to give
                    self._thread = None
                    future.set_exception(error)
                    return future
            self._questions.put((question, future))
            return future

    def _work(self, questions: "SimpleQueue[tuple[Question, Future[Answer]] | None]") -> None:
        while (asked := questions.get()) is not None:
            question, future = asked
            try:
                future.set_result(self._answer(question))
            except BaseException as error:  # noqa: BLE001  whoever waits is told
                future.set_exception(error)

    def _failed(self, reason: str, late: "Future[Answer] | None") -> str:
        with self._turn:
            if reason != self._reason:
                self.alerts += 1
                logger.error("the routing policy is not used, and the fixed mode is taken: %s", reason)
            self._reason, self._late = reason, late or self._late
            self._retry_at = time.monotonic() + self._retry_s
        return reason

    def _mended(self) -> None:
        with self._turn:
            if self._reason is not None:
                logger.warning("the routing policy is used again; before: %s", self._reason)
            self._reason = self._late = None


def _reason(error: Exception, limit: float | None) -> str:
    if limit is not None:
        return TimeoutError(f"it took longer than {limit:g} s").message
    return error.message if isinstance(error, FettleError) else f"it failed ({type(error).__name__}: {error})"
