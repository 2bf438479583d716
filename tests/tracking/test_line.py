"""A line: in order, by another thread, and nobody waits for one that stands still."""

import threading

from fettle.tracking.sinks.line import Line


def test_calls_are_made_in_order_by_another_thread():
    made, line = [], Line("test")
    for number in range(100):
        line.give(lambda number=number: made.append((number, threading.current_thread() is threading.main_thread())))
    assert line.end() == 0
    assert made == [(number, False) for number in range(100)]


def test_one_that_stands_still_is_left_with_what_it_had():
    made, line, go = [], Line("test"), threading.Event()
    line.give(lambda: made.append(1))
    line.give(go.wait)
    line.give(lambda: made.append(2))
    assert line.end(0.2) == 2
    go.set()
    assert made[:1] == [1]
