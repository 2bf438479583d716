"""How a run ended: ``report.md`` for people, ``summary.json`` for programs."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from fettle.tracking.atomic import write_atomically
from fettle.tracking.divergence import divergence
from fettle.tracking.failures import read_failures
from fettle.tracking.files import read_metrics
from fettle.tracking.folder import RunFolder
from fettle.tracking.hacking import hacked_at, hacking_advice, sign_advice, signs_at, verdict
from fettle.tracking.idle import advice, idle_beginning
from fettle.tracking.pages import span
from fettle.tracking.profile import profile_section
from fettle.tracking.provenance import now

MEASURES = {
    "heldout/reward": "held-out reward",
    "heldout/learned": "held-out learned reward",
    "heldout/accuracy": "held-out accuracy",
    "heldout/loss": "held-out loss",
}


class Outcome(Protocol):
    """What a report is written from."""

    @property
    def steps(self) -> int:
        """Steps done."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens drawn or trained on."""
        ...

    @property
    def seconds(self) -> float:
        """Time spent training."""
        ...

    @property
    def first(self) -> Mapping[str, float]:
        """The evaluation before the first step."""
        ...

    @property
    def last(self) -> Mapping[str, float]:
        """The newest evaluation."""
        ...

    @property
    def checkpoint(self) -> str:
        """The newest checkpoint's folder, or nothing."""
        ...

    @property
    def best_checkpoint(self) -> str:
        """The folder of the checkpoint with the best held-out score, or nothing."""
        ...

    @property
    def interrupted(self) -> bool:
        """Whether there are steps left to do."""
        ...


def write_report(folder: RunFolder, outcome: Outcome, *, command: str = "fettle") -> None:
    """Leave how the run ended; a run that is started again leaves it anew. ``command`` is how fettle is typed here.

    Raises:
        StorageError: it could not be written.
    """
    write_atomically(folder.report_path, report(folder, outcome, command=command))
    ending = {
        "ended": now(),
        "launch": len(folder.launches()),
        "interrupted": outcome.interrupted,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "seconds": round(outcome.seconds, 3),
        "first": finite(outcome.first),
        "last": finite(outcome.last),
        "checkpoint": outcome.checkpoint,
        "best_checkpoint": outcome.best_checkpoint,
    }
    write_atomically(folder.summary_path, json.dumps(ending, indent=2) + "\n")


def finite(row: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no other numbers."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def report(folder: RunFolder, outcome: Outcome, *, command: str = "fettle") -> str:
    """The page, with links to what lies in the folder."""
    how = "Interrupted" if outcome.interrupted else "Finished"
    parts = [
        f"# {folder.path.name}",
        f"{how} after {outcome.steps:,} steps.",
        _table(folder, outcome),
        _effort(outcome),
    ]
    parts += [_distance(folder), _idle(folder), verdict(read_metrics(folder.metrics_path)), _hacked(folder)]
    parts.append(_broken(folder))
    if folder.curves_path.is_file():
        parts.append(f"![Curves]({folder.curves_path.name})")
    parts.append(profile_section(folder))
    parts += ["## What is here", "\n".join(_contents(folder, outcome)), "## What next", _next(folder, outcome, command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(folder: RunFolder, outcome: Outcome) -> str:
    """Before and after, with intervals where there are any; the best between them where the newest is not the best."""
    evaluated = {int(row["step"]): row for row in read_metrics(folder.metrics_path) if any(m in row for m in MEASURES)}
    newest, best = max(evaluated, default=None), _step(outcome.best_checkpoint)
    columns = {"before": outcome.first}
    if best in evaluated and best not in (0, newest):
        columns[f"best, after step {best:,}"] = evaluated[best]
    columns["after" if newest is None else f"newest, after step {newest:,}"] = outcome.last
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, title in MEASURES.items():
        if all(name in row for row in columns.values()):
            lines.append(f"| {title} | {' | '.join(_measured(row, name) for row in columns.values())} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _step(checkpoint: str) -> int | None:
    """The step whose weights a checkpoint holds, which its name says."""
    number = Path(checkpoint).name.removeprefix("step-")
    return int(number) if number.isdecimal() else None


def _measured(row: Mapping[str, float], name: str) -> str:
    value = f"**{row[name]:.3f}**"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    failed = f", {row['heldout/failed']:.0f} episodes failed and are not in it" if row.get("heldout/failed") else ""
    return (value if low is None or high is None else f"{value}, 95 % interval {low:.3f} to {high:.3f}") + failed


def _distance(folder: RunFolder) -> str:
    """How far the policy had come in the newest step that says so."""
    for row in reversed(read_metrics(folder.metrics_path)):
        if (found := divergence(row)) is not None:
            name, origin, value = found
            return f"{name} {origin}, in step {int(row['step']):,}: {value:.4f} nats a token."
    return ""


def _idle(folder: RunFolder) -> str:
    rows = read_metrics(folder.metrics_path)
    return f"Warning: {advice(rows)}." if idle_beginning(rows) else ""


def _hacked(folder: RunFolder) -> str:
    rows = read_metrics(folder.metrics_path)
    steps = hacked_at(rows)
    warnings = [hacking_advice(steps[0])] if steps else []
    warnings += [sign_advice(sign, at[0]) for sign, at in signs_at(rows).items()]
    return "\n\n".join(f"Warning: {warning}." for warning in warnings)


def _broken(folder: RunFolder) -> str:
    """How many episodes broke, and why the first one did."""
    failures = read_failures(folder)
    if not failures:
        return ""
    first, path = failures[0], folder.failures_path
    return (
        f"{len(failures):,} episodes failed, and are in no reward above: [{path.name}]({path.name}) has each reason. "
        f"The first, in {first['phase']} at step {first['step']:,}:\n\n{span(str(first['reason']))}"
    )


def _effort(outcome: Outcome) -> str:
    rate = f", {outcome.tokens / outcome.seconds:,.0f} tokens a second" if outcome.seconds > 0 else ""
    return f"{timedelta(seconds=round(outcome.seconds))} of training, {outcome.tokens:,} tokens{rate}."


def _contents(folder: RunFolder, outcome: Outcome) -> Iterator[str]:
    pages = sorted(folder.transcripts.glob("step-*.md"))
    if pages:
        ends = pages if len(pages) < 2 else [pages[0], pages[-1]]
        links = ", ".join(f"[after step {int(p.stem.removeprefix('step-'))}]({_inside(folder, p)})" for p in ends)
        yield f"- samples to read: {links}; all {len(pages)} pages in [transcripts](transcripts/)"
    for title, checkpoint in (("best", outcome.best_checkpoint), ("newest", outcome.checkpoint)):
        if checkpoint:
            yield f"- {title} checkpoint: `{_inside(folder, Path(checkpoint))}`"
    for path, what in (
        (folder.metrics_path, "every number, one JSON object a row"),
        (folder.profile_path, "where the seconds of each step went, part by part"),
        (folder.config_path, "the recipe with every setting resolved; it replays the run"),
        (folder.provenance_path, "versions, source, data and command"),
    ):
        if path.is_file():
            yield f"- [{path.name}]({path.name}): {what}"


def _next(folder: RunFolder, outcome: Outcome, command: str) -> str:
    place = shlex.quote(str(folder.path))
    whole = RunFolder(folder.path.parent) if RunFolder(folder.path.parent).config_path.is_file() else folder
    commands = [f"{command} train --resume {shlex.quote(str(whole.path))}"] if outcome.interrupted else []
    # Only runs that were scored on tasks have tasks to be scored on again.
    commands += [f"{command} eval {place}"] if "heldout/reward" in outcome.last else []
    if "heldout/calibration_error" in outcome.last:  # a reward model, which scores and says nothing
        commands += [f"{command} train RECIPE reward_model.model={place}"]
    else:
        commands += [f"{command} sample {place} 'A question'"]
    return "```sh\n" + "\n".join(commands) + "\n```"


def _inside(folder: RunFolder, path: Path) -> str:
    """As a link from the report, or as it is where it lies elsewhere."""
    return path.relative_to(folder.path).as_posix() if path.is_relative_to(folder.path) else str(path)
