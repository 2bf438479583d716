"""Where the seconds of a run's steps went: ``profile.json`` for programs, and its part of the report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from fettle.tracking.atomic import write_atomically
from fettle.tracking.files import read_metrics
from fettle.tracking.folder import RunFolder, read_object

PARTS: Mapping[str, str] = {
    "sample": "waiting for completions",
    "score": "environments and rewards",
    "forward": "forward passes",
    "backward": "backward passes",
    "optimizer": "optimizer steps",
    "wait": "the loop's own work, and the queue before the engine",
}
"""The parts of a step, in the order in which they come, and what they are."""
STEP = "time/step"
OPERATORS = 10
"""Told in the report; the file has more."""
KEPT = 40


class Operator(Protocol):
    """One of an engine's operators."""

    @property
    def name(self) -> str:
        """As the engine calls it."""
        ...

    @property
    def calls(self) -> int:
        """How often it was called."""
        ...

    @property
    def seconds(self) -> float:
        """Spent in it, those that it calls left out."""
        ...


def write_profile(folder: RunFolder, *, seconds: float, step: int, operators: Sequence[Operator]) -> None:
    """Leave where a run of ``seconds`` spent them.

    ``operators`` are those of one ``step``, the most expensive first. It was slowed by being looked at, and is left
    out of the rest. A run that is gone on with keeps those that it had found.

    Raises:
        StorageError: it could not be written.
    """
    earlier = read_object(folder.profile_path)
    found = {"profiled_step": step, "operators": _told(operators)} if operators else {}
    looked_at = {"profiled_step": None, "operators": [], **{k: earlier[k] for k in _LOOKED_AT if k in earlier}, **found}
    rows = {int(row["step"]): row for row in read_metrics(folder.metrics_path) if STEP in row}
    kept = [row for number, row in rows.items() if number != looked_at["profiled_step"]]
    totals = {part: sum(row.get(f"time/{part}", 0.0) for row in kept) for part in parts_of(kept)}
    whole = sum(totals.values())
    profile = {
        "seconds": whole,
        "totals": totals,
        "shares": {part: spent / whole for part, spent in totals.items()} if whole else {},
        "outside_steps": max(0.0, seconds - sum(row[STEP] for row in rows.values())),
        **looked_at,
        "steps": [
            {"step": number, **{part: row[f"time/{part}"] for part in parts_of([row])}} for number, row in rows.items()
        ],
    }
    write_atomically(folder.profile_path, json.dumps(profile, indent=2) + "\n")


def parts_of(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The parts that the rows speak of, in order."""
    return [part for part in PARTS if any(f"time/{part}" in row for row in rows)]


def profile_section(folder: RunFolder) -> str:
    """For the report; nothing where the run was not profiled."""
    profile = read_object(folder.profile_path)
    return "\n\n".join(_section(folder, profile)) if profile.get("totals") else ""


def _section(folder: RunFolder, profile: Mapping[str, Any]) -> Iterator[str]:
    yield "## Where the time went"
    lines = ["| part of a step | seconds | share |", "|---|---|---|"]
    for part, spent in profile["totals"].items():
        lines.append(f"| {part}: {PARTS[part]} | {spent:.2f} | {profile['shares'][part]:.1%} |")
    yield "\n".join([*lines, f"| all steps | {profile['seconds']:.2f} | |"])
    yield f"{profile['outside_steps']:.2f} s besides: evaluations, checkpoints, and what came before the first step."
    if folder.profile_chart_path.is_file():
        yield f"![Where the time went]({folder.profile_chart_path.name})"
    if profile["operators"]:
        yield f"The operators of step {profile['profiled_step']:,}, by the time spent in each itself:"
        lines = ["| operator | calls | seconds | share |", "|---|---|---|---|"]
        for each in profile["operators"][:OPERATORS]:
            lines.append(f"| `{each['name']}` | {each['calls']:,} | {each['seconds']:.4f} | {each['share']:.1%} |")
        yield "\n".join(lines)


def _told(operators: Sequence[Operator]) -> list[dict[str, Any]]:
    whole = sum(each.seconds for each in operators) or 1.0
    return [
        {"name": each.name, "calls": each.calls, "seconds": each.seconds, "share": each.seconds / whole}
        for each in operators[:KEPT]
    ]


_LOOKED_AT = ("profiled_step", "operators")
