"""Whoever asks never waits longer than was allowed, and whatever fails is left alone for a while."""

import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from fettle.errors import CheckpointError, DataError
from fettle.router.guard import Guard, UnansweredError


class Answering:
    """Answers with twice the question, until it is told to fail or to hang."""

    def __init__(self):
        self.asked = 0
        self.error = None
        self.free = threading.Event()
        self.free.set()

    def __call__(self, question):
        self.asked += 1
        self.free.wait()
        if self.error is not None:
            raise self.error
        return 2 * question


@pytest.fixture
def answering():
    made = Answering()
    yield made
    made.free.set()


def guarded(answering, **settings):
    return Guard(answering, **{"time_limit_s": 60.0, "retry_s": 3600.0, **settings})


def failure(guard, question=1):
    with pytest.raises(UnansweredError) as told:
        guard.ask(question)
    return str(told.value)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_answer_comes_back(answering):
    guard = guarded(answering)
    assert [guard.ask(each) for each in (1, 2)] == [2, 4]
    guard.close()


def test_what_hangs_is_not_waited_for_and_not_asked_again_while_it_hangs(answering, caplog):
    answering.free.clear()
    guard = guarded(answering, time_limit_s=0.05, retry_s=0.01)
    assert failure(guard) == "it took longer than 0.05 s"
    time.sleep(0.05)  # long past the time of a retry
    assert [failure(guard) for _ in range(20)] == ["it took longer than 0.05 s"] * 20
    assert answering.asked == 1
    assert (guard.alerts, len(caplog.records)) == (1, 1)
    answering.free.set()
    until(lambda: _answered(guard))
    guard.close()


def _answered(guard):
    try:
        return guard.ask(1, within_s=60) == 2
    except UnansweredError:
        return False


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CheckpointError("it is damaged"), "it is damaged"),
        (ZeroDivisionError("by zero"), "it failed (ZeroDivisionError: by zero)"),
        (MemoryError(), "it failed (MemoryError: )"),
    ],
)
def test_what_fails_is_left_alone_and_told_once(answering, caplog, error, reason):
    answering.error = error
    guard = guarded(answering)
    assert [failure(guard) for _ in range(5)] == [reason] * 5
    assert answering.asked == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    guard.close()


def test_after_a_while_one_question_tries_again_and_an_answer_mends_it(answering, caplog):
    answering.error = CheckpointError("it is damaged")
    guard = guarded(answering, retry_s=0.2)
    failure(guard)
    until(lambda: failure(guard) and answering.asked == 2)
    assert guard.alerts == 1, "the same reason is not told twice"
    answering.error = CheckpointError("it is gone")
    until(lambda: failure(guard) == "it is gone")
    assert guard.alerts == 2
    answering.error = None
    until(lambda: _answered(guard))
    assert guard.ask(3) == 6
    assert caplog.records[-1].levelno == logging.WARNING
    guard.close()


def test_a_question_with_a_fault_of_its_own_is_refused_and_the_next_is_asked(answering):
    guard = guarded(answering)
    answering.error = DataError("no feature")
    assert failure(guard) == "no feature"
    answering.error = None
    assert guard.ask(2) == 4
    assert guard.alerts == 0
    guard.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_is_forked_asks_for_itself(answering):
    guard = guarded(answering)
    assert guard.ask(1) == 2
    child = os.fork()
    if child == 0:
        os._exit(0 if guard.ask(4) == 8 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    guard.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_hangs_in_one_process_hangs_in_no_other(answering):
    answering.free.clear()
    guard = guarded(answering, time_limit_s=0.05, retry_s=0.01)
    failure(guard)
    child = os.fork()
    if child == 0:
        answering.free.set()
        os._exit(0 if guard.ask(4, within_s=60) == 8 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_while_it_fails_a_question_with_a_fault_of_its_own_is_not_taken_for_the_one_that_tries_again(answering):
    answering.error = CheckpointError("it is damaged")
    guard = guarded(answering, retry_s=0.5)
    failure(guard)
    answering.error = DataError("no feature")
    until(lambda: failure(guard) == "no feature")
    answering.error = None
    assert guard.ask(2) == 4, "not only after another half a second"
    guard.close()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_what_ends_a_thread_ends_nobody_who_asks(answering, error):
    answering.error = error
    guard = guarded(answering, retry_s=0.01)
    assert failure(guard).startswith(f"it failed ({type(error).__name__}")
    answering.error = None
    until(lambda: _answered(guard))
    guard.close()


def test_a_time_limit_that_no_clock_reaches_is_one_all_the_same(answering):
    guard = guarded(answering, time_limit_s=1e300)
    assert guard.ask(1) == 2
    guard.close()


def test_what_nobody_waits_for_any_more_is_not_answered(answering):
    answering.free.clear()
    guard = guarded(answering, time_limit_s=0.5, retry_s=0.01)
    together = threading.Barrier(5)

    def ask():
        together.wait()
        failure(guard)

    askers = [threading.Thread(target=ask) for _ in range(5)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    answering.free.set()
    until(lambda: _answered(guard))
    assert answering.asked == 2
    guard.close()


def test_a_log_that_nobody_reads_holds_only_who_writes_to_it(answering):
    answering.error = CheckpointError("it is damaged")
    guard = guarded(answering)
    stuck, free = threading.Event(), threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record):
            stuck.set()
            free.wait(60)

    handler = Stuck()
    logging.getLogger("fettle.router.guard").addHandler(handler)
    told = []
    first, second = (threading.Thread(target=lambda: told.append(failure(guard)), daemon=True) for _ in range(2))
    first.start()
    assert stuck.wait(60)
    second.start()
    second.join(20)
    held = second.is_alive()
    free.set()
    first.join()
    logging.getLogger("fettle.router.guard").removeHandler(handler)
    assert not held
    assert told == ["it is damaged"] * 2
    guard.close()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are others there")
def test_where_no_thread_can_be_begun_there_is_no_answer_and_no_exception_of_another_kind():
    command = [sys.executable, "-c", NO_MORE_THREADS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "it failed (RuntimeError: can't start new thread)\n"), done.stderr


NO_MORE_THREADS = """
import resource, threading
from fettle.router.guard import Guard, UnansweredError
threading.stack_size(512 * 2**20)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20,) * 2)
try:
    Guard(str, time_limit_s=60, retry_s=60).ask(1)
except UnansweredError as error:
    print(error)
"""
