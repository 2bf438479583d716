"""The curves of a run, as its page draws them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.service.faces.console.shown import finite

Row = Mapping[str, Any]
MOST_POINTS = 1000
"""Of one curve: more than that have no pixel of their own."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: the first of its metrics that a run speaks of."""

    label: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share an axis."""

    title: str
    unit: str
    lines: tuple[Line, ...]


TOKENS_PER_SECOND = "speed/tokens_per_second"
PANELS = (
    Panel(
        "Reward",
        "mean of a step",
        (Line("training", ("reward/mean", "reward")), Line("held-out", ("heldout/reward",))),
    ),
    Panel("Loss", "of a step", (Line("training", ("loss",)), Line("held-out", ("heldout/loss",)))),
    Panel(
        "KL divergence",
        "nats per token",
        (
            Line("from reference", ("policy/kl", "policy/kl_k3")),
            Line("from sampler", ("policy/kl_sampler", "loss/kl_sampler")),
        ),
    ),
    Panel("Entropy", "nats per token", (Line("policy", ("policy/entropy", "loss/entropy")),)),
    Panel("Clip fraction", "share of tokens", (Line("clipped", ("policy/clip_fraction", "loss/clip_fraction")),)),
    Panel("Gradient norm", "before clipping", (Line("global", ("policy/grad_norm",)),)),
    Panel("Speed", "tokens per second", (Line("trained", (TOKENS_PER_SECOND,)),)),
)


def merged(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a step, in order; what was told last of a step holds."""
    steps: dict[int, dict[str, Any]] = {}
    for row in rows:
        step = steps.setdefault(int(row["step"]), {})
        step.update(row)
        if TOKENS_PER_SECOND not in row and row.get("time/step") and "tokens/trained" in row:
            step[TOKENS_PER_SECOND] = row["tokens/trained"] / row["time/step"]
    return [steps[step] for step in sorted(steps)]


def panels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The panels that the rows have points for: steps, and for each line a value or none at every step."""
    steps = merged(rows)
    found = []
    for panel in PANELS:
        lines = [(line.label, values) for line in panel.lines if (values := _values(steps, line.metrics)) is not None]
        told = [place for place in range(len(steps)) if any(values[place] is not None for _, values in lines)]
        if told:
            kept = _thinned(told)
            found.append(
                {
                    "title": panel.title,
                    "unit": panel.unit,
                    "steps": [int(steps[place]["step"]) for place in kept],
                    "lines": [{"label": label, "values": [values[place] for place in kept]} for label, values in lines],
                }
            )
    return found


def last(rows: Sequence[Row], *metrics: str) -> float | None:
    """The newest value of the first of the metrics that the rows speak of."""
    for metric in metrics:
        for row in reversed(rows):
            if (value := finite(row.get(metric))) is not None:
                return value
    return None


def _values(steps: Sequence[Row], metrics: Sequence[str]) -> list[float | None] | None:
    for metric in metrics:
        values = [finite(row.get(metric)) for row in steps]
        if any(value is not None for value in values):
            return values
    return None


def _thinned(places: Sequence[int]) -> Sequence[int]:
    """Evenly, the newest included."""
    stride = math.ceil(len(places) / MOST_POINTS)
    return places[(len(places) - 1) % stride :: stride]
