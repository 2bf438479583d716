"""How a pipeline ended: one table of what was held out, before and after each stage, for people and for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from fettle.tracking.atomic import write_atomically
from fettle.tracking.folder import RunFolder, read_object
from fettle.tracking.hacking import HACKING
from fettle.tracking.provenance import now
from fettle.tracking.report import finite

HEAD = ("stage", "held out", "before", "after", "95 % interval", "steps", "time", "left")
LEGEND = (
    "Before and after are of the weights that the stage started from and of those it left, on what was never trained "
    "on. Every policy is put to the same tasks, those of the last stage of reinforcement, so that these rows compare. "
    "The KL is from the stage's start, in nats a token, by k1 on the policy's own replies; the KL k3 of a step is "
    "another, from the reference. A stage leaves its newest checkpoint, a reward model its best; what is told of it "
    "here is the beginning of its digest, which pipeline.json has in full."
)
LEARNED_LEGEND = "Learned rewards are after the scale and clip of the last stage of reinforcement."
LOSS, ACCURACY = "heldout/loss", "heldout/accuracy"
DIGITS = 12
"""Of a digest, in the table."""


class StageOutcome(Protocol):
    """How one stage ended."""

    @property
    def name(self) -> str:
        """The stage's name, and its folder's."""
        ...

    @property
    def steps(self) -> int:
        """Steps done."""
        ...

    @property
    def seconds(self) -> float:
        """Time spent training."""
        ...

    @property
    def before(self) -> Mapping[str, float]:
        """Held-out scores of what it started from."""
        ...

    @property
    def after(self) -> Mapping[str, float]:
        """Held-out scores of what it left."""
        ...

    @property
    def digest(self) -> str | None:
        """What identifies what it left; None where it was interrupted."""
        ...


def write_stages_report(folder: RunFolder, outcomes: Sequence[StageOutcome], *, interrupted: bool) -> None:
    """Leave how a pipeline ended: ``report.md`` with the table, ``summary.json`` with its numbers.

    Raises:
        StorageError: they could not be written.
    """
    stages = [
        {
            "name": outcome.name,
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 3),
            "before": finite(outcome.before),
            "after": finite(outcome.after),
            "digest": outcome.digest,
        }
        for outcome in outcomes
    ]
    head, *rows = _lines(stages)
    linked = ((f"[{name}]({name}/report.md)" if name else "", *rest) for name, *rest in rows)
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *linked))
    write_atomically(folder.report_path, f"# {folder.path.name}\n\n{table}\n\n{_legend(stages)}\n{_warning(stages)}")
    ending = {"ended": now(), "launch": len(folder.launches()), "interrupted": interrupted, "stages": stages}
    write_atomically(folder.summary_path, json.dumps(ending, indent=2) + "\n")


def stages_table(folder: RunFolder) -> list[tuple[str, ...]]:
    """The table of a pipeline that has ended, its head first; empty where there is none."""
    stages = read_object(folder.summary_path).get("stages")
    return list(_lines(stages)) if isinstance(stages, list) else []


def _lines(stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A line for each thing measured of each stage; what is true of the whole stage stands on its first."""
    yield HEAD
    learned = _learned(stages)
    for stage in stages:
        took = str(timedelta(seconds=round(stage["seconds"])))
        facts = (f"{stage['steps']:,}", took, (stage["digest"] or "interrupted")[:DIGITS])
        name = stage["name"]
        for metric, title in _measures(learned=learned).items():
            after = stage["after"].get(metric)
            if after is None or (
                metric == LOSS and ACCURACY in stage["after"]
            ):  # which says the same, and more plainly
                continue
            before = stage["before"].get(metric)
            yield name, title, _number(before), _number(after), _interval(stage["after"], metric), *facts
            name, facts = "", ("", "", "")
        if name:
            yield name, "", "", "", "", *facts


def _learned(stages: Sequence[Mapping[str, Any]]) -> bool:
    return any("heldout/learned" in stage["after"] for stage in stages)


def _legend(stages: Sequence[Mapping[str, Any]]) -> str:
    return f"{LEGEND} {LEARNED_LEGEND}" if _learned(stages) else LEGEND


def _measures(*, learned: bool) -> dict[str, str]:
    """Metrics, in the order of the table, and what they are called there."""
    return {
        LOSS: "loss",
        ACCURACY: "accuracy",
        "heldout/reward": "true reward" if learned else "reward",
        "heldout/learned": "learned reward",
        "heldout/kl": "KL from start, k1",
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(row: Mapping[str, float | None], metric: str) -> str:
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _warning(stages: Sequence[Mapping[str, Any]]) -> str:
    hacked = [stage["name"] for stage in stages if stage["after"].get(HACKING)]
    return "".join(f"\nWarning: {name} ended with learned and true reward parted: see its report.\n" for name in hacked)
