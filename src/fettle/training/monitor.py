"""Reward hacking: the learned reward rises while the true one falls; and, short of it, while the true one stays."""

from collections.abc import Mapping, Sequence

from fettle.config import Monitor
from fettle.tracking import FLAT, HACKING

LEARNED, TRUE = "heldout/learned", "heldout/reward"


def alarm_row(evaluations: Sequence[Mapping[str, float]], monitor: Monitor) -> dict[str, float]:
    """The alarm and, short of it, the note, as metrics: 1 where the newest of the evaluations gives it, 0 otherwise."""
    alarm = parted(evaluations, monitor)
    return {HACKING: float(alarm), FLAT: float(not alarm and flat(evaluations, monitor))}


def parted(evaluations: Sequence[Mapping[str, float]], monitor: Monitor) -> bool:
    """Whether the two rewards have gone different ways, as of the newest of the evaluations, oldest first.

    They have where over the last ``window`` evaluations the learned reward rose, and the true one is now more than
    ``tolerance`` below the best it ever was (Gao et al., 2022, arXiv:2210.10760, measure the same two curves).
    """
    if len(evaluations) < monitor.window:
        return False
    newest, earlier = evaluations[-1], evaluations[-monitor.window]
    best = max(row[TRUE] for row in evaluations)
    return newest[LEARNED] > earlier[LEARNED] and newest[TRUE] < best - monitor.tolerance


def flat(evaluations: Sequence[Mapping[str, float]], monitor: Monitor) -> bool:
    """Whether over the last ``window`` the learned reward rose, and the true one by no more than ``tolerance``."""
    if len(evaluations) < monitor.window:
        return False
    newest, earlier = evaluations[-1], evaluations[-monitor.window]
    return newest[LEARNED] > earlier[LEARNED] and newest[TRUE] <= earlier[TRUE] + monitor.tolerance
