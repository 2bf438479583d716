"""TensorBoard: files of events, in a folder for each run."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fettle.tracking.base import Transcript
from fettle.tracking.sinks.base import Described, Model, Sink

FOLDER = "tensorboard"
"""Where they are written by themselves, from where the command is given."""


def opened(destination: str, run: Described) -> Sink:
    """A folder named for the run, in that of its project; what is told of it stands under Text."""
    folder = Path(destination or FOLDER) / run.project / run.name
    importlib.import_module("tensorboard")  # by whose name it is told of where it is missing
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
    about = {"entity": run.entity, "tags": ", ".join(run.tags), "simulated": str(run.simulated).lower()}
    texts = {"description": run.description, **about, "settings": json.dumps(run.settings, indent=2, default=str)}
    for name, text in texts.items():
        if text:
            writer.add_text(name, text)
    return TensorBoard(writer, folder)


class TensorBoard:
    """Satisfies ``Sink``."""

    identity = ""

    def __init__(self, writer: Any, folder: Path) -> None:
        self._writer = writer
        self._folder = folder

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """A point of each curve."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Nothing: it takes numbers only."""

    def catch_up(self, rows: Sequence[Mapping[str, float]]) -> None:
        """The points that its files do not have."""
        reading: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
        events = reading.EventAccumulator(str(self._folder), size_guidance={"scalars": 0}).Reload()
        there = {(name, each.step) for name in events.Tags()["scalars"] for each in events.Scalars(name)}
        for row in rows:
            for name in row.keys() - {"step", "time"}:
                if (name, int(row["step"])) not in there:
                    self._writer.add_scalar(name, row[name], int(row["step"]), walltime=row["time"])
        self._writer.flush()

    def keep(self, files: Sequence[Path], model: Model | None) -> None:
        """Nothing: it takes numbers only."""

    def close(self, *, failed: bool = False) -> None:
        """Close the file."""
        self._writer.add_text("outcome", "failed" if failed else "finished")
        self._writer.close()
