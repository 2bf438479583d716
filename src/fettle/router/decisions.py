"""A decision of a router, and the two files that decisions are written down in."""

import atexit
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, Literal

from fettle.config.routing import RoutingLog
from fettle.router.amounts import amount
from fettle.router.logs import Lines, Lost, now
from fettle.router.modes import MODES, CollaborationMode
from fettle.router.opinions import Opinion
from fettle.router.teams import Agent

WAITING = 4096
"""Lines that may wait for their file; those for which there is no room are lost."""
CLOSE_S = 5.0
"""How long is waited for a file at the end."""

Source = Literal["fixed", "policy", "exploration", "preference", "fallback", "nothing"]
"""Who decided: the fixed mode as the exposure has it, the policy, chance, the preferences, the fixed mode in the place
of a policy that could not, or nobody, for no mode fits."""

_Line = tuple[str, str, Callable[[], Mapping[str, Any]]]
"""Of which file, when, and what is in it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which mode one request takes, with whom, and why."""

    request: str
    mode: CollaborationMode | None
    """None where no mode keeps within the caps: then nobody is to be asked anything."""
    agents: tuple[Agent, ...]
    rounds: int
    """How often each of them is called."""
    usd: float
    """What their calls cost."""
    p95_s: float
    source: Source
    why: str
    propensity: float
    """The probability with which a request like this takes this mode."""
    ruled_out: Mapping[CollaborationMode, str]
    """The modes that were not to be had, and why."""
    exposure: str
    opinion: Opinion | None
    """What the policy says, whether or not it was followed; None where it was not asked, or had no answer."""

    def as_json(self) -> dict[str, Any]:
        """For a line of the log. What the policy says was learned in a simulator, and says so."""
        said = self.opinion
        return {
            "request": self.request,
            "mode": self.mode,
            "agents": [agent.name for agent in self.agents],
            "rounds": self.rounds,
            "usd": self.usd,
            "p95_s": self.p95_s,
            "source": self.source,
            "why": self.why,
            "propensity": self.propensity,
            "ruled_out": dict(self.ruled_out),
            "exposure": self.exposure,
            "version": None if said is None else said.version,
            "probabilities": None if said is None else dict(said.probabilities),
            "value": None if said is None else said.value,
            "observed": None if said is None else dict(said.observation),
            "contributions": None if said is None or said.contributions is None else _plain(said.contributions),
            "simulated": True,
        }


def _plain(contributions: Mapping[str, Mapping[CollaborationMode, float]]) -> dict[str, dict[str, float]]:
    return {feature: {str(mode): added for mode, added in row.items()} for feature, row in contributions.items()}


class DecisionLog:
    """Lines added to files by a thread of its own, which is begun when the first one is: no caller waits for a disk.

    A line for which there is no room among those that wait, and one that cannot be written, is lost and counted.
    """

    def __init__(self, settings: RoutingLog) -> None:
        self._settings = settings
        self._lost = Lost("a routing decision")
        self._begin()

    def _begin(self) -> None:
        """As it is before the first line."""
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._waiting: Queue[_Line | None] = Queue(WAITING)
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> int:
        """Lines that are not written down."""
        return self._lost.count

    def decided(self, decision: Decision) -> None:
        """Write down what was decided."""
        if self._settings.enabled:
            self._add(self._settings.decisions, decision.as_json)

    def earned(self, decision: Decision, reward: float) -> None:
        """Write down what a decision came to earn.

        A replay has no place for one that no policy was asked about, or that preferences left no choice about.
        """
        said = decision.opinion
        if not self._settings.enabled or said is None or decision.source in ("preference", "nothing"):
            return
        earned = amount(reward)
        if earned is None or not math.isfinite(earned):
            what = f"of type {type(reward).__name__}" if earned is None else f"{earned:g}"
            self._lost.tell(f"the reward of request {decision.request} is {what}, and not a number that could be one")
            return
        line = {
            "observation": list(said.observation.values()),
            "mode": decision.mode,
            "propensity": decision.propensity,
            "reward": earned,
            "allowed": [mode for mode in MODES if mode not in decision.ruled_out],
            "request": decision.request,
            "source": decision.source,
            "version": said.version,
        }
        self._add(self._settings.outcomes, lambda: line)

    def close(self, within_s: float = CLOSE_S) -> None:
        """Wait until all is written, and let go of the files; what is not written by then is lost."""
        self._see_to_forks()
        with self._turn:
            thread, waiting = self._thread, self._waiting
            self._thread, self._waiting = None, Queue(WAITING)
        if thread is None:
            return
        atexit.unregister(self.close)
        until = time.monotonic() + within_s
        with contextlib.suppress(Full):
            waiting.put(None, timeout=within_s)
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            left = _taken_out(waiting)
            waiting.put(None)
            self._lost.tell(f"its file takes nothing, and {within_s:g} s were waited", left + 1)

    def _see_to_forks(self) -> None:
        """A process that was forked has no such thread, and the lines that waited are the other's to write."""
        if os.getpid() != self._process:
            self._begin()

    def _add(self, path: str, fields: Callable[[], Mapping[str, Any]]) -> None:
        self._see_to_forks()
        try:
            with self._turn:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write, args=(self._waiting,), daemon=True)
                    self._thread.start()
                    atexit.register(self.close)
                self._waiting.put_nowait((path, now(), fields))
        except Full:
            self._lost.tell(f"{WAITING} lines wait for their file already")
        except RuntimeError as error:  # the system has no more threads to give
            self._thread = None
            self._lost.tell(str(error))

    def _write(self, waiting: "Queue[_Line | None]") -> None:
        files: dict[str, Lines] = {}
        while (line := waiting.get()) is not None:
            path, at, fields = line
            try:
                files.setdefault(path, Lines(Path(path))).add({**fields(), "at": at})
            except OSError as error:
                self._lost.tell(f"{path} cannot be written to ({error.strerror})")
            except Exception as error:  # noqa: BLE001  a line that cannot be put in words must not end the others
                self._lost.tell(f"it cannot be put in words ({type(error).__name__})")
        for path, file in files.items():
            try:
                file.close()
            except OSError as error:
                self._lost.tell(f"{path} cannot be written to ({error.strerror})")


def _taken_out(waiting: "Queue[_Line | None]") -> int:
    """How many lines were in the queue, which is empty then."""
    count = 0
    with contextlib.suppress(Empty):
        while True:
            count += waiting.get_nowait() is not None
    return count
