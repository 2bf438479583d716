"""A run as it goes, for whoever watches: one live line on a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from fettle.tracking.base import Transcript
from fettle.tracking.divergence import divergence
from fettle.tracking.hacking import FLAT, flat_advice, hacked_at, hacking_advice, sign_advice, signs_at
from fettle.tracking.idle import ENOUGH, TEACHING, advice, idle_beginning

PLAIN_SECONDS = 5.0
"""Between plain lines; the first step, the last one and evaluations always have theirs."""
TOLD = {
    "reward/mean": "reward {:.3f}",
    "reward/learned": "learned {:.3f}",
    "reward/true": "true {:.3f}",
    "heldout/reward": "held-out {:.3f}",
    "heldout/learned": "learned {:.3f}",
    "heldout/failed": "{:.0f} held-out episodes FAILED, not counted",
    "rollout/failed": "{:.0%} of episodes FAILED",
    "loss": "loss {:.4f}",
    "heldout/loss": "held-out {:.4f}",
    "heldout/accuracy": "accuracy {:.3f}",
}
"""Metrics as they are said on one line, in this order."""
BESIDE_LEARNED = {"reward/mean": "", "heldout/reward": "held-out true {:.3f}"}
"""How those of one area are said where a learned reward stands beside them; nothing is said twice."""


class ConsoleTracker:
    """Shows progress, reward, KL, speed and the time left, on standard error.

    ``output`` decides by rich's rules whether it is a terminal that can be drawn on (``NO_COLOR`` and ``TERM=dumb``
    mean no); ``clock`` counts seconds.
    """

    def __init__(self, output: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output or Console(stderr=True, highlight=False)
        self._clock = clock
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._latest: dict[str, float] = {}
        self._beginning: list[Mapping[str, float]] = []
        self._noted = False
        self._told: set[str] = set()
        self._steps = self._first = 0
        self._began = self._shown = clock()

    def start(self, steps: int, title: str, *, done: int = 0) -> None:
        """Begin a run of ``steps`` steps, of which ``done`` lie behind it."""
        self._steps, self._first, self._began = steps, done, self._clock()
        self._shown = self._began - PLAIN_SECONDS
        self._output.print(Text(title, style="bold"))
        if self._output.is_interactive and not self._output.no_color:
            self._live = Progress(
                BarColumn(bar_width=10),
                MofNCompleteColumn(),
                # Where the line is too short for everything, the last numbers give way, and the time left stays.
                TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
                TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
                console=self._output,
                refresh_per_second=2,
                redirect_stdout=False,
                expand=True,
            )
            self._task = self._live.add_task("", total=steps, completed=done, left="")
            self._live.start()

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Take in one row."""
        self._latest.update(row)
        self._warn_if_idle(row)
        for hacked in hacked_at([{**row, "step": step}]):
            self._warn(hacking_advice(hacked))
        for sign in signs_at([{**row, "step": step}]).keys() - self._told:
            self._told.add(sign)
            self._warn(sign_advice(sign, step))
        if row.get(FLAT) and not self._noted:
            self._noted = True
            self._output.print(Text(f"note: {flat_advice(step)}"), soft_wrap=True)
        evaluated = any(name.startswith("heldout/") for name in row)
        left = self._left(step)
        if self._live is not None:
            numbers = "  ".join(_numbers(self._latest))
            self._live.update(self._task, completed=step, description=numbers, left=left)
        elif evaluated or step in (self._first + 1, self._steps) or self._clock() - self._shown >= PLAIN_SECONDS:
            self._shown = self._clock()
            parts = [f"step {step}/{self._steps}", *_numbers(row), left]
            self._output.print(Text("  ".join(filter(None, parts))), soft_wrap=True)

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Nothing: samples are for the run's folder."""

    def close(self) -> None:
        """Leave the last line standing."""
        if self._live is not None:
            self._live.refresh()
            self._live.stop()
            self._live = None

    def _warn_if_idle(self, row: Mapping[str, float]) -> None:
        if TEACHING not in row or len(self._beginning) == ENOUGH:
            return
        self._beginning.append(row)
        if idle_beginning(self._beginning):
            self._warn(advice(self._beginning))

    def _warn(self, what: str) -> None:
        self._output.print(Text(f"warning: {what}", style="yellow"), soft_wrap=True)

    def _left(self, step: int) -> str:
        done = step - self._first
        if done <= 0 or step >= self._steps:
            return ""
        seconds = round((self._clock() - self._began) / done * (self._steps - step))
        return f"{timedelta(seconds=seconds)} left".removeprefix("0:")


def _numbers(row: Mapping[str, float]) -> Iterator[str]:
    """What there is of what matters, the most telling first."""
    for name, told in TOLD.items():
        # What can fail is told only where something did.
        if name in row and (row[name] or not name.endswith("/failed")):
            if f"{name.partition('/')[0]}/learned" in row:
                told = BESIDE_LEARNED.get(name, told)
            if told:
                yield told.format(row[name])
    distance = divergence(row)
    if distance is not None:
        name, _, value = distance
        yield f"{name} {value:.4f}"
    if "speed/tokens_per_second" in row:
        yield f"{row['speed/tokens_per_second']:,.0f} tokens/s"
