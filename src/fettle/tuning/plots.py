"""A study as one picture: its history, which settings mattered, and what each of their values came to."""

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from fettle.config.study import Floats, Integers, Study
from fettle.tracking import write_atomically
from fettle.tracking.plots import BLUE, FAINT_INK, GRID, INK, ORANGE
from fettle.tuning.folder import StudyFolder
from fettle.tuning.report import Line, Standing

COLUMNS = 3
ENDED_EARLY, FINISHED = "ended early", "finished"


def draw_standing(folder: StudyFolder, study: Study, found: Standing) -> None:
    """Leave ``study.png``, if any trial has a score.

    Raises:
        StorageError: it could not be written.
    """
    scored = [line for line in found.lines if line.value is not None and math.isfinite(line.value)]
    if not scored:
        return
    panels = 1 + bool(found.importance) + len(study.space)
    rows = math.ceil(panels / COLUMNS)
    figure = Figure(figsize=(4.2 * min(panels, COLUMNS), 3.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    places = iter([figure.add_subplot(rows, min(panels, COLUMNS), at + 1) for at in range(panels)])
    _history(next(places), study, scored)
    if found.importance:
        _importance(next(places), found.importance)
    for path in study.space:
        _slice(next(places), study, path, scored, found.best)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(folder.chart_path, picture.getvalue())


def _history(axes: Axes, study: Study, scored: Sequence[Line]) -> None:
    _points(axes, [line.number for line in scored], scored)
    finished = [line for line in scored if line.state == FINISHED]
    better = max if study.direction == "maximize" else min
    so_far = [better(float(line.value or 0) for line in finished[: at + 1]) for at in range(len(finished))]
    axes.step([line.number for line in finished], so_far, where="post", color=ORANGE, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    _dressed(axes, "History", "trial", study.metric)


def _importance(axes: Axes, importance: dict[str, float]) -> None:
    names = sorted(importance, key=importance.__getitem__)
    bars = axes.barh([_short(name) for name in names], [importance[name] for name in names], color=BLUE, height=0.55)
    axes.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=8, color=INK)
    axes.set_xlim(0, 1.15 * max(importance.values()))
    _dressed(axes, "Importance", "share of the score's variation", "")


def _slice(axes: Axes, study: Study, path: str, scored: Sequence[Line], best: int | None) -> None:
    space, known = study.space[path], [line for line in scored if path in line.parameters]
    values = [line.parameters[path] for line in known]
    if space.type == "categorical":
        names = [str(choice) for choice in space.choices]
        places = [float(names.index(str(value))) for value in values]
        axes.set_xticks(range(len(names)), names)
    else:
        places = [float(value) for value in values if isinstance(value, int | float)]
    if isinstance(space, Floats) and space.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(space.low / 1.2, space.high * 1.2)
    if isinstance(space, Integers):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _points(axes, places, known)
    chosen = [(at, float(line.value or 0)) for at, line in zip(places, known, strict=True) if line.number == best]
    if chosen:
        [(at, value)] = chosen
        axes.scatter([at], [value], s=90, facecolors="none", edgecolors=ORANGE, linewidths=1.6)
    _dressed(axes, _short(path), path, study.metric)


def _points(axes: Axes, places: Sequence[float], lines: Sequence[Line]) -> None:
    for state, color, marker in ((FINISHED, BLUE, "o"), (ENDED_EARLY, FAINT_INK, "x")):
        shown = [(at, line.value) for at, line in zip(places, lines, strict=True) if line.state == state]
        if shown:
            x, y = zip(*shown, strict=True)
            axes.scatter(x, y, s=22, color=color, marker=marker, label=state)


def _short(path: str) -> str:
    return path.rpartition(".")[2]


def _dressed(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(x, fontsize=8, color=FAINT_INK)
    axes.set_ylabel(y, fontsize=8, color=FAINT_INK)
    axes.tick_params(labelsize=8, colors=FAINT_INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
