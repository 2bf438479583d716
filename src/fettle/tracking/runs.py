"""The runs in a folder, as what they left tells; nothing is believed that can be looked up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from fettle.tracking.claim import is_claimed
from fettle.tracking.files import read_metrics
from fettle.tracking.folder import RunFolder, read_object

Status = Literal["finished", "running", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of a list of runs."""

    name: str
    kind: str
    """``rl``, ``sft`` or ``pipeline``; ``unknown`` where the recipe cannot be read."""
    status: Status
    """``running`` while a living process holds it; ``finished`` if it said so at its end; ``interrupted`` otherwise."""
    steps: int
    """Steps in its metrics, over all stages."""
    reward: float | None
    """The newest held-out reward, or, before there is one, the newest mean reward of a step."""
    started: str
    """When it first started, in ISO 8601; empty where it did not say."""


def list_runs(root: Path) -> list[RunSummary]:
    """The runs in ``root``, oldest first. A folder without a recipe is none; a half-written one is told as it is."""
    if not root.is_dir():
        return []
    folders = [RunFolder(path) for path in root.iterdir() if path.is_dir()]
    found = [_summary(folder) for folder in folders if folder.config_path.is_file()]
    return sorted(found, key=lambda run: (run.started, run.name))


def _summary(folder: RunFolder) -> RunSummary:
    config = _config(folder)
    names = _stage_names(config)
    parts = [RunFolder(folder.path / name) for name in names] if names else [folder]
    rows = [read_metrics(part.metrics_path) for part in parts]
    rewards = [reward for part in rows if (reward := _newest_reward(part)) is not None]
    starts = [str(launch.get("started", "")) for part in (folder, *parts) for launch in part.launches()[:1]]
    return RunSummary(
        name=folder.path.name,
        kind=str(config.get("type", "unknown")),
        status=_status([folder, *parts] if names else parts),  # a pipeline is over when its own report is written
        steps=sum(max((int(row["step"]) for row in part), default=0) for part in rows),
        reward=rewards[-1] if rewards else None,
        started=min(starts, default=""),
    )


def _config(folder: RunFolder) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(folder.config_path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _stage_names(config: Mapping[str, Any]) -> list[str]:
    stages = config.get("stages")
    named = [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return [str(stage.get("name") or stage.get("type")) for stage in named]


def _status(parts: Sequence[RunFolder]) -> Status:
    if any(is_claimed(part.path) for part in parts):
        return "running"
    return "finished" if all(map(_is_finished, parts)) else "interrupted"


def _is_finished(folder: RunFolder) -> bool:
    """Whether the run said that it was done, and has not been started again since."""
    ending = read_object(folder.summary_path)
    return ending.get("interrupted") is False and ending.get("launch") == len(folder.launches())


def _newest_reward(rows: Sequence[Mapping[str, float]]) -> float | None:
    for name in ("heldout/reward", "reward/mean"):
        values = [row[name] for row in rows if name in row]
        if values:
            return values[-1]
    return None
