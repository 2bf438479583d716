"""What each page shows, in the words of its template."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fettle.broker import PolicyInfo
from fettle.service.callers import Caller
from fettle.service.core import Service
from fettle.service.entries import Run, RunState, UsageRow
from fettle.service.faces.console.conversations import Group, groups_of_draws, groups_of_episodes
from fettle.service.faces.console.curves import last
from fettle.service.faces.console.newest import newest_metrics
from fettle.service.faces.console.shown import number, size, visible

MOST_RUNS = 100
"""On one page."""
ALL = 1_000_000
STATES: tuple[RunState, ...] = ("active", "paused", "completed", "failed")
REWARDS = ("reward/mean", "reward", "heldout/reward")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run in the list."""

    run: Run
    steps: int
    measure: str
    value: float | None


class Move(NamedTuple):
    """What can be done to a run."""

    state: RunState
    verb: str
    final: bool


async def runs(service: Service, caller: Caller, *, q: str, state: str) -> dict[str, Any]:
    """The caller's newest runs, those of a state and with a word in them where that is asked for."""
    mine, total = await service.runs(caller, limit=ALL, offset=0)
    wanted = [run for run in mine if (not state or run.state == state) and _speaks_of(run, q)]
    rows = await asyncio.to_thread(lambda: [_row(service, run) for run in wanted[:MOST_RUNS]])
    return {"runs": rows, "more": max(0, len(wanted) - MOST_RUNS), "total": total, "states": STATES}


async def status(service: Service, run: Run) -> dict[str, Any]:
    """How a run stands."""
    rows = await asyncio.to_thread(newest_metrics, Path(service.settings.state), run.id)
    adapter = run.spec.lora
    return {
        "run": run,
        "trains": "all weights" if adapter is None else f"an adapter of rank {adapter.rank}",
        "steps": _steps(rows),
        "policy": service.broker.policies().get(run.id),
    }


def moves(run: Run) -> list[Move]:
    """What can be done to a run."""
    finish = Move("completed", "Complete", final=True)
    if run.state == "active":
        return [Move("paused", "Pause", final=False), finish]
    return [Move("active", "Resume", final=False), finish] if run.state == "paused" else []


def settings_of(run: Run) -> str:
    """What a run was made of, as it would stand in a recipe."""
    said: dict[str, Any] = {"policy": run.spec.model_dump(mode="json")}
    if run.checkpoint:
        said["checkpoint"] = run.checkpoint
    if run.metadata:
        said["metadata"] = dict(run.metadata)
    return visible(yaml.safe_dump(said, sort_keys=False, allow_unicode=True))


async def samples(service: Service, run: Run, *, step: int | None, least: float | None) -> dict[str, Any]:
    """What a run has said: its clients' episodes, or else its last draws."""
    told = await service.told.episodes(run.id)
    groups: Sequence[Group] = groups_of_episodes(told, step=step, least=least)
    if not told and (draws := service.told.draws(run.id)):
        groups = groups_of_draws(draws, service.models.named(run.model))
    shaded = any(each.pieces for group in groups for sample in group.samples for each in (*group.prompt, *sample.said))
    return {"run": run, "told": bool(told), "groups": groups, "shaded": shaded}


async def queue(service: Service, caller: Caller) -> dict[str, Any]:
    """What waits, what works and what is served."""
    mine, _ = await service.runs(caller, limit=ALL, offset=0)
    policies = service.broker.policies()
    at_work: list[tuple[Run, PolicyInfo]] = [
        (run, policies[run.id]) for run in mine if run.state == "active" and run.id in policies
    ]
    return {
        "health": _health(service),
        "counts": list(_counts(service, caller)),
        "runs": at_work[:MOST_RUNS],
        "models": list(service.models),
    }


def _health(service: Service) -> dict[str, str]:
    if service.stopping:
        return {"state": "paused", "word": "stopping", "sentence": "Nothing new is taken in; what was, is finished."}
    if not service.ready:
        return {"state": "paused", "word": "starting", "sentence": "No model has generated anything yet."}
    return {"state": "active", "word": "ready", "sentence": "A model has generated, and work is taken in."}


def _counts(service: Service, caller: Caller) -> Iterator[tuple[str, str]]:
    """What waits, for everybody; what there is besides is of all tenants together, and so for admins."""
    for name, value in service.broker.counts().items():
        if not caller.admin and not name.endswith("_waiting"):
            continue
        if "bytes" in name:
            yield name.replace("_", " "), size(int(value))
        else:
            yield name.replace("_", " "), number(value) + (" s" if name.endswith("seconds") else "")


def _speaks_of(run: Run, words: str) -> bool:
    return words.lower() in f"{run.name}\n{run.id}\n{run.model}".lower()


def _row(service: Service, run: Run) -> RunRow:
    rows = newest_metrics(Path(service.settings.state), run.id)
    reward = last(rows, *REWARDS)
    value = last(rows, "loss") if reward is None else reward
    return RunRow(run, _steps(rows), "" if value is None else "loss" if reward is None else "reward", value)


def _steps(rows: Sequence[dict[str, Any]]) -> int:
    return max((int(row["step"]) for row in rows), default=0)


def by_day(rows: Sequence[UsageRow]) -> list[UsageRow]:
    """What every run of a tenant came to in a day, kind by kind, newest first."""
    days: dict[tuple[str, str, str], UsageRow] = {}
    for row in rows:
        name = (row.day, row.tenant, row.kind)
        so_far = days.get(name, UsageRow(row.tenant, "", row.kind, row.day, operations=0, microseconds=0, tokens=0))
        days[name] = replace(
            so_far,
            operations=so_far.operations + row.operations,
            microseconds=so_far.microseconds + row.microseconds,
            tokens=so_far.tokens + row.tokens,
        )
    return sorted(sorted(days.values(), key=lambda row: (row.tenant, row.kind)), key=lambda row: row.day, reverse=True)
