"""A run's curves as one picture. Apart from the rest of this room, because matplotlib is slow to import."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from fettle.tracking.atomic import write_atomically
from fettle.tracking.profile import STEP, parts_of

Row = Mapping[str, float]

BLUE, ORANGE = "#2f6db3", "#d9731a"
INK, FAINT_INK, GRID = "#30343b", "#8b919a", "#e4e6ea"
PART_COLORS = {
    "sample": "#2f6db3",
    "score": "#7fb0de",
    "forward": "#d9731a",
    "backward": "#f0aa63",
    "optimizer": "#5b8f4c",
    "wait": "#c3c7cd",
}
SMOOTHED_FROM = 30
"""Points from which a noisy line is drawn faint, with its running mean over it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One metric: the first of ``metrics`` that the rows speak of. ``low`` and ``high`` are metrics that bound it."""

    metrics: tuple[str, ...]
    label: str
    color: str
    marked: bool = False
    """Drawn point by point as measured, because points are few and each is worth a look."""
    low: str = ""
    high: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Metrics that share an axis."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    from_zero: bool = False
    shares: bool = False
    """Drawn from 0 to 1."""
    ticks: str = "{x:g}"


HELDOUT_REWARD = Line(
    ("heldout/reward",),
    "held-out, 95 % interval",
    ORANGE,
    marked=True,
    low="heldout/reward_low",
    high="heldout/reward_high",
)
PANELS = (
    Panel(
        "Win rate",
        "share of games",
        (
            Line(
                ("heldout/win_rate",),
                "held-out, against its start or who is named, 95 % interval",
                ORANGE,
                marked=True,
                low="heldout/win_rate_low",
                high="heldout/win_rate_high",
            ),
        ),
        shares=True,
    ),
    Panel(
        "Reward",
        "mean reward",
        (
            Line(("reward/mean",), "training", BLUE),
            HELDOUT_REWARD,
        ),
    ),
    Panel(
        "Loss",
        "nats per token",
        (Line(("loss",), "training", BLUE), Line(("heldout/loss",), "held-out", ORANGE, marked=True)),
        from_zero=True,
    ),
    Panel(
        "KL divergence",
        "nats per token",
        (
            Line(("policy/kl", "policy/kl_k3"), "from reference", BLUE),
            Line(("policy/kl_sampler",), "from sampler", ORANGE),
        ),
        from_zero=True,
    ),
    Panel("Entropy", "nats per token", (Line(("policy/entropy",), "policy", BLUE),), from_zero=True),
    Panel("Clip fraction", "share of tokens", (Line(("policy/clip_fraction",), "clipped", BLUE),), from_zero=True),
    Panel(
        "Speed",
        "tokens per second",
        (Line(("speed/tokens_per_second",), "tokens", BLUE),),
        from_zero=True,
        ticks="{x:,.0f}",
    ),
)


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Leave a PNG of the rows' curves; rows that hold none leave none.

    Raises:
        StorageError: it could not be written.
    """
    figure = curves(rows)
    if figure.axes:
        _print(figure, path)


def draw_profile(rows: Sequence[Row], path: Path) -> None:
    """Leave a PNG of where the seconds of each step went, one part upon the other; rows of no step leave none.

    Raises:
        StorageError: it could not be written.
    """
    steps = {int(row["step"]): row for row in rows if STEP in row}
    if steps:
        _print(_stacked(steps), path)


def _stacked(steps: Mapping[int, Row]) -> Figure:
    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    numbers, below = list(steps), [0.0] * len(steps)
    for part in parts_of(list(steps.values())):
        spent = [row[f"time/{part}"] for row in steps.values()]
        axes.bar(numbers, spent, bottom=below, width=1.0, color=PART_COLORS[part], label=part)
        below = [so_far + more for so_far, more in zip(below, spent, strict=True)]
    _style(axes, "Where the seconds of a step went", "seconds", "{x:g}")
    axes.set_xlabel("step", color=INK)
    # From the top of the legend to the bottom as in the bars.
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, labelcolor=INK, reverse=True)
    return figure


def curves(rows: Sequence[Row]) -> Figure:
    """One panel for each thing the rows speak of: the first across the whole width, the others below it in pairs."""
    panels = [panel for panel in PANELS if any(_points(rows, *line.metrics) for line in panel.lines)]
    below = max(0, math.ceil((len(panels) - 1) / 2))
    width, height = 10.0, 4.0 + 2.6 * below
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    if not panels:
        return figure
    # Room for the words, in inches. To have it found out takes longer than all of the drawing.
    left, right, bottom, top, between, above = 0.8, 0.15, 0.75, 0.35, 1.0, 0.65
    row = (height - bottom - top - above * below) / (1 + below)
    grid = figure.add_gridspec(
        1 + below,
        2,
        height_ratios=[1.5] + [1.0] * below,
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=2 * between / (width - left - right - between),
        hspace=above / row,
    )
    for place, panel in enumerate(panels):
        line, column = divmod(place + 1, 2)
        alone = place == 0 or (place == len(panels) - 1 and column == 0)
        axes = figure.add_subplot(grid[line, :] if alone else grid[line, column])
        _draw(axes, panel, rows)
        if place >= len(panels) - 2 + (len(panels) > 1 and alone):
            axes.set_xlabel("step", color=INK)
    if any(len(points) >= SMOOTHED_FROM for points in _unmarked(panels, rows)):
        figure.supxlabel("faint: every step    bold: running mean", fontsize=8.5, color=FAINT_INK, x=0.99, ha="right")
    return figure


def _draw(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    for line in panel.lines:
        points = _points(rows, *line.metrics)
        if points:
            (_draw_marked if line.marked else _draw_plain)(axes, line, points, rows)
    _style(axes, panel.title, panel.unit, panel.ticks)
    if panel.shares or (panel.title == "Reward" and axes.dataLim.ymin >= 0 and axes.dataLim.ymax <= 1):
        axes.set_ylim(-0.02, 1.02)
    if panel.from_zero and axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    if len(panel.lines) > 1 or panel.shares:
        # On the title's line, where it hides no curve.
        above = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.99), "borderaxespad": 0.0, "ncols": len(panel.lines)}
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=1.5, **above)


def _style(axes: Axes, title: str, unit: str, ticks: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", color=INK, fontsize=11)
    axes.set_ylabel(unit, color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(StrMethodFormatter(ticks))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT_INK)


def _print(figure: Figure, path: Path) -> None:
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    write_atomically(path, png.getvalue())


def _draw_marked(axes: Axes, line: Line, points: Mapping[int, float], rows: Sequence[Row]) -> None:
    low, high = _points(rows, line.low), _points(rows, line.high)
    bounded = [step for step in points if step in low and step in high]
    lows, highs = [low[step] for step in bounded], [high[step] for step in bounded]
    axes.fill_between(bounded, lows, highs, color=line.color, alpha=0.16, linewidth=0)
    axes.plot(
        list(points),
        list(points.values()),
        color=line.color,
        linewidth=1.6,
        marker="o",
        markersize=4.5,
        label=line.label,
    )


def _draw_plain(axes: Axes, line: Line, points: Mapping[int, float], rows: Sequence[Row]) -> None:
    steps, values = list(points), list(points.values())
    if len(points) < SMOOTHED_FROM:
        axes.plot(steps, values, color=line.color, linewidth=1.6, label=line.label)
        return
    axes.plot(steps, values, color=line.color, linewidth=1.0, alpha=0.3)
    axes.plot(steps, _running_mean(values), color=line.color, linewidth=1.8, label=line.label)


def _unmarked(panels: Sequence[Panel], rows: Sequence[Row]) -> list[dict[int, float]]:
    return [_points(rows, *line.metrics) for panel in panels for line in panel.lines if not line.marked]


def _points(rows: Sequence[Row], *metrics: str) -> dict[int, float]:
    """The first of the metrics that has any finite value, by step; where a step was logged twice, as it was last."""
    for metric in metrics:
        points = {int(row["step"]): row[metric] for row in rows if math.isfinite(row.get(metric, math.nan))}
        if points:
            return points
    return {}


def _running_mean(values: Sequence[float]) -> list[float]:
    """Over about a twentieth of the points; the window is centred, and so it shrinks towards the ends."""
    widest, last = max(1, len(values) // 40), len(values) - 1
    reaches = [min(widest, at, last - at) for at in range(len(values))]
    windows = [values[at - reach : at + reach + 1] for at, reach in enumerate(reaches)]
    return [sum(window) / len(window) for window in windows]
