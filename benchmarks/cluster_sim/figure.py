"""The figure of ``docs/scaling.md``: what more GPUs come to, and what holds them up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cluster_sim.sweep import FIXED, GROWING, LOOPS

COLOURS = ("#7f7f7f", "#1f77b4", "#d95f02", "#1b9e77")
PART_COLOURS: Mapping[str, str] = {
    "sampler": "#1f77b4",
    "trainer": "#d95f02",
    "environment": "#1b9e77",
    "driver": "#7570b3",
    "sync": "#e6ab02",
    "collective": "#a6761d",
}
Rows = Sequence[Mapping[str, Any]]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the figure of a report."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, ((fixed, growing), (parts, sync)) = plt.subplots(2, 2, figsize=(12.5, 9), layout="constrained")
    _fixed(fixed, [row for row in report["scales"] if row["growth"] == FIXED.name])
    _growing(growing, [row for row in report["scales"] if row["growth"] == GROWING.name])
    _parts(parts, report["bottlenecks"])
    _sync(sync, report["sync"])
    for axes in (fixed, growing, parts, sync):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _fixed(axes: Any, rows: Rows) -> None:
    for loop, colour in zip(LOOPS, COLOURS, strict=True):
        own = [row for row in rows if row["loop"] == loop]
        gpus = [row["gpus"] for row in own]
        axes.plot(gpus, [row["seconds"] for row in own], "o-", ms=4, color=colour, label=loop)
        axes.plot(gpus, [row["limit"] for row in own], ":", lw=1.2, color=colour)
    axes.plot([], [], ":", color="black", label="least, in closed form")
    axes.set_yscale("log")
    axes.set(title="A batch of 256 episodes: seconds a step", xlabel="GPUs", ylabel="s")
    axes.legend(frameon=False, fontsize=9)


def _growing(axes: Any, rows: Rows) -> None:
    for loop, colour in zip(LOOPS, COLOURS, strict=True):
        own = [row for row in rows if row["loop"] == loop]
        axes.plot(
            [row["gpus"] for row in own],
            [row["tokens"] / row["gpus"] for row in own],
            "o-",
            ms=4,
            color=colour,
            label=loop,
        )
    axes.set(title="2 episodes for each GPU: tokens drawn a second and GPU", xlabel="GPUs", ylabel="tokens / s / GPU")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)


def _parts(axes: Any, rows: Rows) -> None:
    for part, colour in PART_COLOURS.items():
        for growth, style in ((GROWING.name, "o-"), (FIXED.name, "--")):
            own = [row for row in rows if row["growth"] == growth]
            label = part if growth == GROWING.name else None
            axes.plot(
                [r["gpus"] for r in own], [100 * r["saved"][part] for r in own], style, ms=4, color=colour, label=label
            )
    axes.plot([], [], "--", color="black", label="with the batch of 256")
    axes.set(title="k = 1: what a step gains if one part is twice as fast", xlabel="GPUs", ylabel="% of the step")
    axes.legend(frameon=False, fontsize=9)


def _sync(axes: Any, rows: Rows) -> None:
    styles = {("adapter", "broadcast"): "C0o-", ("adapter", "store"): "C0s--", ("full", "broadcast"): "C1o-"}
    for kind, style in {**styles, ("full", "store"): "C1s--"}.items():
        own = [row for row in rows if (row["weights"], row["spread"]) == kind]
        label = f"{'adapter' if kind[0] == 'adapter' else 'whole weights'}, {kind[1].replace('store', 'object store')}"
        axes.plot([row["samplers"] for row in own], [row["seconds"] for row in own], style, ms=4, label=label)
    axes.set_yscale("log")
    axes.set(title="From new weights to samplers that draw from them: seconds", xlabel="samplers", ylabel="s")
    axes.legend(frameon=False, fontsize=9)
