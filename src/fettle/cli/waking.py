"""Event loops that signals wake, so that Ctrl-C is heeded at once."""

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """What ``asyncio.run`` returns.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """

    async def awake() -> Result:
        with woken(asyncio.get_running_loop()):
            return await main

    return asyncio.run(awake())


@contextmanager
def woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Signals wake the loop: one that comes as it goes to sleep would else be heeded only when something else does."""
    if sys.platform == "win32":  # whose loop does so by itself
        yield
        return
    hearing, telling = socket.socketpair()
    with hearing, telling:
        for end in (hearing, telling):
            end.setblocking(False)
        loop.add_reader(hearing, hearing.recv, 4096)
        before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(hearing)
