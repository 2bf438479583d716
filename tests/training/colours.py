"""A preference that must be read from the prompt: the colour asked for is chosen, the other one rejected."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, PreferenceRun, RewardModelRun, TinyModel
from fettle.data import Preference, Rating
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.tracking import RunFolder
from fettle.training import Callback, Session, Summary, preference
from fettle.types import Message

from .conftest import Memory

COLOURS = ("red", "blue")


def pair(number: int, colour: str, *, margin: float = 0.0) -> Preference:
    other = COLOURS[1 - COLOURS.index(colour)]
    asked = (Message("user", f"Paint {number} {colour}"),)
    return Preference(asked, f"{number} is {colour}", f"{number} is {other}", margin)


PAIRS = [pair(number, colour) for number in range(20, 80) for colour in COLOURS]
HELDOUT = [pair(number, colour) for number in range(80, 100) for colour in COLOURS]


def rated(pairs: Sequence[Preference]) -> list[Rating]:
    """Every reply by itself, alternately the good one of a prompt and the bad one."""
    return [
        Rating(each.prompt, each.chosen if good else each.rejected, good) for good in (True, False) for each in pairs
    ]


def painter(folder: Path, **settings: int) -> str:
    """A small model of random weights that knows the words."""
    texts = [message.content for each in PAIRS for message in each.prompt] + [each.chosen for each in PAIRS]
    return make_tiny_model(TinyModel(**{"hidden": 32, "layers": 2, "heads": 2, **settings}), folder, texts=texts)


@dataclass
class Trained:
    summary: Summary
    memory: Memory
    folder: RunFolder

    @property
    def first(self) -> dict[str, float]:
        return next(row for row in self.memory.rows if "heldout/loss" in row)

    @property
    def last(self) -> dict[str, float]:
        return next(row for row in reversed(self.memory.rows) if "heldout/loss" in row)


async def trained(
    run: PreferenceRun | RewardModelRun,
    folder: Path,
    examples=PAIRS,
    heldout=HELDOUT,
    callbacks: Sequence[Callback] = (),
    stop: asyncio.Event | None = None,
) -> Trained:
    """Learn from pairs or ratings for real, on from where the folder stands."""
    memory, place = Memory(), RunFolder.at(folder)
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=place.checkpoints))
    session = Session(
        place, memory, checkpoints=run.checkpoints, steps=run.steps, stop=stop or asyncio.Event(), callbacks=callbacks
    )
    session.stop_when(patience=run.evaluation.patience, target=run.evaluation.target)
    template = Template(load_tokenizer(str(run.policy.model)))
    try:
        summary = await preference.train(
            run, engine=engine, examples=examples, heldout=heldout, template=template, session=session
        )
    finally:
        engine.close()
    return Trained(summary, memory, place)


def small(kind: type[PreferenceRun] | type[RewardModelRun], model: str, **settings):
    """A run of seconds."""
    ratings = settings.get("loss", {}).get("type") == "kto"
    defaults = {
        "policy": {"model": model},
        "data": {"type": "ratings" if ratings else "preferences", "path": "unused.jsonl"},
        "steps": 100,
        "batch_size": 16,
        "max_tokens": 64,
        "optimizer": {"learning_rate": 3e-3},
        "evaluation": {"every": 100},
        "checkpoints": {"every": 100},
    }
    return kind.model_validate({**defaults, **settings})
