"""What a cluster would do: ``python -m benchmarks.cluster_sim``.

Simulated from a table of costs, whose sources are in it: the GPU's are published numbers and assumptions, those of the
driver are measured here. ``--check`` runs the same model against real runs on this machine.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cluster_sim import sweep
from benchmarks.cluster_sim.costs import MEASURED, PUBLISHED, Costs, costs
from benchmarks.cluster_sim.episodes import Work
from benchmarks.cluster_sim.model import least
from benchmarks.figures import rounded

ENGINES = ("local", "ray 1", "ray 2")


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster_sim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gpus", type=int, default=1024, help="up to so many")
    parser.add_argument("--costs", type=Path, default=PUBLISHED, help="another table in the place of h100.json")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--figure", type=Path, metavar="PATH", help="write the figure there")
    parser.add_argument("--measure", action="store_true", help="measure the driver's costs, and write measured.json")
    parser.add_argument("--check", action="store_true", help="predict runs on this machine, and make them")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["local"], help="with --check")
    parser.add_argument(
        "--ahead", type=int, nargs="+", default=[0, 1, 2], help="with --check: max_staleness of the runs"
    )
    parser.add_argument("--steps", type=int, default=9, help="with --check: steps of a run")
    asked = parser.parse_args()
    if not asked.costs.is_file():
        parser.error(f"there is no {asked.costs}: --costs takes a file like {PUBLISHED}")
    if asked.check and asked.figure is not None:
        parser.error("--figure draws what is simulated: leave out --check")
    if asked.check and asked.steps < least(max(asked.ahead)):
        parser.error(
            f"--steps is {asked.steps}, and runs {max(asked.ahead)} ahead settle from {least(max(asked.ahead))} on"
        )
    if asked.measure:
        _measure()
        return
    if asked.check:
        found: dict[str, Any] = {"check": _checked(asked)}
    else:
        found = report(costs(asked.costs, MEASURED), [count for count in sweep.GPUS if count <= asked.gpus])
    if asked.figure is not None:
        from benchmarks.cluster_sim.figure import draw

        draw(found, asked.figure)
    print(json.dumps(rounded(found)) if asked.json else "\n\n".join(tables(found)), flush=True)


def report(table: Costs, gpus: Sequence[int]) -> dict[str, Any]:
    """All that is simulated."""
    work, growths = Work(), (sweep.FIXED, sweep.GROWING)
    rows = [row for growth in growths for row in sweep.scales(growth, work, table, gpus)]
    held = [row for growth in growths for row in sweep.bottlenecks(growth, 1, work, table, gpus)]
    ends = {
        f"{growth.name}, {loop}": sweep.saturates([r for r in rows if (r["growth"], r["loop"]) == (growth.name, loop)])
        for growth in growths
        for loop in sweep.LOOPS
    }
    return {
        "scales": rows,
        "saturates": ends,
        "bottlenecks": held,
        "choices": sweep.choices(work, table, [count for count in (16, 256) if count in gpus]),
        "sync": sweep.synchronised(table, gpus),
    }


def tables(found: Mapping[str, Any]) -> list[str]:
    """What was found, as tables."""
    told = []
    if "check" in found:
        names = (
            "engine",
            "max_staleness",
            "predicted",
            "step",
            "error",
            "call",
            "request",
            "learned",
            "looped",
            "load",
        )
        told.append(_table(names, found["check"]))
        return told
    flat = [{**row, **{f"{name} used": share for name, share in row["used"].items()}} for row in found["scales"]]
    parts = ("sampler used", "trainer used", "driver used", "environment used")
    told.append(_table(("growth", "loop", "gpus", "samplers", "seconds", "limit", "tokens", "lag", *parts), flat))
    held = [{**row, **row["saved"]} for row in found["bottlenecks"]]
    told.append(_table(("growth", "gpus", "bottleneck", *found["bottlenecks"][0]["saved"]), held))
    told.append(_table(("choice", "gpus", "seconds", "multiple", "fits"), found["choices"]))
    told.append(_table(("samplers", "weights", "spread", "seconds"), found["sync"]))
    ends = [{"loop": loop, "no use beyond": at or "more than tried"} for loop, at in found["saturates"].items()]
    told.append(_table(("loop", "no use beyond"), ends))
    return told


def _table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(names)] + [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _measure() -> None:
    from benchmarks.cluster_sim import driver
    from benchmarks.machine import described

    found = driver.measured()
    told = {
        "about": "Measured by python -m benchmarks.cluster_sim --measure: the loop's own Python, on one core.",
        "machine": described(),
        "costs": {name: [rounded(seconds, 3), "measured here"] for name, seconds in found.items()},
    }
    MEASURED.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(MEASURED.read_text(encoding="utf-8"), end="")


def _checked(asked: argparse.Namespace) -> list[dict[str, Any]]:
    from benchmarks.cluster_sim.check import checked
    from benchmarks.cluster_sim.slow import Known
    from benchmarks.harness import prepare

    prepare(1)
    return checked(Known(), engines=asked.engines, ahead=asked.ahead, steps=asked.steps)


if __name__ == "__main__":
    main()
