"""Signs of hacking in held-out replies: components that go different ways, length, and repetition."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from fettle.config import Alarms
from fettle.tracking import COMPONENT, LENGTH, REPETITION
from fettle.types import Tokens, Trajectory

REWARD, LEARNED, TOKENS, REPEATED = "heldout/reward", "heldout/learned", "heldout/tokens_mean", "heldout/repetition"
PARTS, CORRELATION = "heldout/component/", "heldout/correlation/"
GRAM = 4
"""Tokens in a row that count as repeated."""
ROUNDING = 1e-12

Rows = Sequence[Mapping[str, float]]
"""Evaluations, oldest first."""


def signs(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What is watched of one evaluation.

    The mean of each component, how it goes with the sum of the others from episode to episode where both differ, and
    how much of a reply was said before in the same reply.
    """
    names = sorted({name for trajectory in trajectories for name in trajectory.components})
    paid = {name: [trajectory.components.get(name, 0.0) for trajectory in trajectories] for name in names}
    row = {f"{PARTS}{name}": statistics.fmean(values) for name, values in paid.items()}
    for name, values in paid.items():
        others = [trajectory.reward - value for trajectory, value in zip(trajectories, values, strict=True)]
        if len(names) > 1 and (found := _correlation(values, others)) is not None:
            row[f"{CORRELATION}{name}"] = found
    said = [turn.completion.tokens for trajectory in trajectories for turn in trajectory.turns]
    shares = [share for tokens in said if (share := repetition(tokens)) is not None]
    return {**row, **({REPEATED: statistics.fmean(shares)} if shares else {})}


def repetition(tokens: Tokens) -> float | None:
    """The share of its runs of four tokens that stood in it before; None of a reply too short to repeat itself.

    >>> repetition([1, 2, 3, 4, 5]), repetition([7] * 12)
    (0.0, 0.8888888888888888)
    """
    grams = [tuple(tokens[at : at + GRAM]) for at in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else None


def alarms(evaluations: Rows, settings: Alarms) -> dict[str, float]:
    """The alarms as metrics: 1 where the newest evaluation gives it. None is given where the reward does not rise."""
    rising = rose(evaluations, settings.window)
    return {
        COMPONENT: float(rising and bool(fallen(evaluations, settings))),
        LENGTH: float(rising and _grown(evaluations, TOKENS, lambda first: settings.length * first)),
        REPETITION: float(rising and _grown(evaluations, REPEATED, lambda first: settings.repetition + first)),
    }


def rose(evaluations: Rows, window: int) -> bool:
    """Whether what is learned from is above that of ``window`` evaluations ago, or of the first."""
    if len(evaluations) < 2:
        return False
    newest, earlier = evaluations[-1], evaluations[max(0, len(evaluations) - window)]
    name = LEARNED if LEARNED in newest and LEARNED in earlier else REWARD
    return newest[name] > earlier[name]


def fallen(evaluations: Rows, settings: Alarms) -> list[str]:
    """The components that are further below their best than they may be, and went down over the window.

    Too few evaluations to fill the window say nothing.
    """
    if len(evaluations) < settings.window:
        return []
    newest, earlier = evaluations[-1], evaluations[-settings.window]
    return [
        name.removeprefix(PARTS)
        for name, value in newest.items()
        if name.startswith(PARTS)
        and value < earlier.get(name, 0.0)
        and value < _lowest_allowed([row[name] for row in evaluations if name in row], settings.fall)
    ]


def _lowest_allowed(values: Iterable[float], fall: float) -> float:
    best = max(values)
    return best - fall * abs(best)


def _grown(evaluations: Rows, name: str, bound: Callable[[float], float]) -> bool:
    known = [row[name] for row in evaluations if name in row]
    return len(known) > 1 and name in evaluations[-1] and known[-1] > bound(known[0])


def _correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's; None where one of them does not vary."""
    if len(one) < 2 or min(statistics.pstdev(one), statistics.pstdev(other)) < ROUNDING:
        return None
    return statistics.correlation(one, other)
