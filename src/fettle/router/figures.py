"""Evaluations as one picture. Apart from the rest of this room, because matplotlib is slow to import."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fettle.router.evaluation import Evaluation
from fettle.tracking import write_atomically

OWN, OTHER, INK, GRID = "#d9731a", "#2f6db3", "#30343b", "#e4e6ea"


def draw(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Everyone's mean reward with its interval; a point for each run where there are several.

    Raises:
        StorageError: it cannot be written.
    """
    standings = [{each.name: each for each in (*found.others, found.policy)} for found in evaluations]
    # The policy is on top; not every simulator has an oracle.
    names = [*dict.fromkeys(each.name for found in evaluations for each in found.others), evaluations[0].policy.name]
    figure = Figure(figsize=(8, 0.45 * len(names) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for at, name in enumerate(names):
        for place, of_run in enumerate(standings):
            if name not in of_run:
                continue
            standing = of_run[name]
            height = at + 0.5 * ((place + 0.5) / len(evaluations) - 0.5)
            below, above = standing.mean - standing.low, standing.high - standing.mean
            color = OWN if at == len(names) - 1 else OTHER
            axes.errorbar(standing.mean, height, xerr=[[below], [above]], fmt="o", markersize=4, color=color, capsize=2)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("mean reward of a decision on held-out seeds, with 95 % interval (simulated)", color=INK)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())
