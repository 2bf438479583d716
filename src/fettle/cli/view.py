"""``fettle view``: read the episodes of a run, or of a file that was collected."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.inspect import print_columns
from fettle.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from fettle.tracking import Transcript

SHOWN = 60
"""Characters of what is asked that a listing shows."""

HEAD = ("episode", "reward", "components", "ending", "turns", "asked")


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode, and where it is from: an evaluation of a run, or its name in a file."""

    place: str
    transcript: "Transcript"

    @property
    def line(self) -> tuple[str, ...]:
        """What a list says of it; nothing in it acts on a terminal."""
        from fettle.tracking.pages import visible

        shown = self.transcript
        parts = " + ".join(f"{name} {value:g}" for name, value in shown.components.items())
        asked = next((message.content for message in reversed(shown.messages) if message.role == "user"), "")
        turns = sum(message.role == "assistant" for message in shown.messages)
        ending = shown.ending or "finished"
        place = f"{self.place} {shown.player}".strip()
        cells = (place, f"{shown.reward:.3f}", parts, ending, str(turns), asked)
        return tuple(" ".join(visible(cell).split())[:SHOWN] for cell in cells)


def view(
    place: Annotated[str, typer.Argument(help="A run folder, a run's name, or a file that was collected.")],
    text: Annotated[str, typer.Option(help="Only episodes in which this is said, in either case.")] = "",
    min_reward: Annotated[float | None, typer.Option(help="Only episodes that earned so much.")] = None,
    max_reward: Annotated[float | None, typer.Option(help="Only episodes that earned no more.")] = None,
) -> None:
    """Read the episodes of a run or of a collected file: a browser in a terminal, a plain list elsewhere."""
    from fettle.tracking import Search

    found = list(episodes(place))
    search = Search(min_reward, max_reward, text)
    if sys.stdin.isatty() and sys.stdout.isatty():
        if importlib.util.find_spec("textual") is None:
            raise ConfigError("reading in a terminal needs the package textual: pip install 'fettle[view]'")

        from fettle.cli.browser import Browser

        Browser(found, search, title=place).run()
        return
    wanted = [each for each in found if search.finds(each.transcript)]
    print_columns([HEAD, *(each.line for each in wanted)])
    print(f"{len(wanted)} of {len(found)} episodes")


def episodes(place: str) -> Iterator[Episode]:
    """The episodes of a run folder, of the stages of a pipeline, or of a file.

    Raises:
        DataError: a file holds something else.
        NotFoundError: there are none.
    """
    from fettle.rollouts.trajectories import recorded, transcript

    path = next((each for each in (Path(place), Path("runs") / place) if each.exists()), None)
    if path is None:
        raise NotFoundError(f"there is no {place}: give a run folder (see fettle runs), or a file that was collected")
    if path.is_file():
        for each in recorded(path):
            yield Episode(each.episode, transcript(each.trajectory))
        return
    folders = [path, *sorted(each for each in path.iterdir() if (each / "evaluations").is_dir())]
    found = [episode for folder in folders for episode in _evaluated(folder, folder.name if folder != path else "")]
    if not found:
        raise NotFoundError(f"{path} holds no episodes: give a run of type rl that has been evaluated")
    yield from found


def _evaluated(path: Path, stage: str) -> Iterator[Episode]:
    from fettle.tracking import RunFolder, read_transcripts

    for step, transcript in read_transcripts(RunFolder(path)):
        yield Episode(f"{stage} step {step}".strip(), transcript)
