"""Calls that may hang: each on a thread of its own, which nobody waits for at the end."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

from fettle.cluster.seat import GoneError, Seat

Result = TypeVar("Result")


def asked(call: Callable[[], Result]) -> Future[Result]:
    """What a call comes to."""
    future: Future[Result] = Future()

    def carry_out() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  whoever waits for it raises it
            future.set_exception(error)

    threading.Thread(target=carry_out, name="sampler", daemon=True).start()
    return future


def answers(
    calls: Mapping[str, tuple[Seat, Callable[[], Result]]], look: float
) -> Iterator[tuple[str, Future[Result]]]:
    """Calls as they end, by name; that of a sampler that does not answer ends in a ``GoneError``.

    Those that are slow are looked at every ``look`` seconds.
    """
    waiting = {asked(call): name for name, (_, call) in calls.items()}
    while waiting:
        ended, _ = wait(waiting, timeout=look, return_when=FIRST_COMPLETED)
        for future in ended:
            yield waiting.pop(future), future
        for future in [] if ended else list(waiting):
            name = waiting[future]
            if not calls[name][0].alive():
                lost: Future[Result] = Future()
                lost.set_exception(GoneError("it does not answer"))
                yield waiting.pop(future), lost
