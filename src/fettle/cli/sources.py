"""Where a run's data come from: demonstrations and pairs to learn from, and those it is scored on."""

from collections.abc import Collection, Sequence
from pathlib import Path

from fettle.config import (
    JSONL,
    Conversations,
    DemonstrationsConfig,
    Episodes,
    RLRun,
    StageConfig,
)
from fettle.data import Conversation, conversations, demonstrations, episodes, split, split_by_prompt
from fettle.environments import Sheltered, suite
from fettle.types import Message

Prompt = tuple[Message, ...]


def conversations_of(
    data: DemonstrationsConfig, heldout: Collection[Prompt]
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """What to learn from, and what to be scored on."""
    if isinstance(data, Conversations):
        return split(conversations(data.path), heldout=data.heldout, seed=data.seed)
    if isinstance(data, Episodes):
        found = episodes(data.path, min_reward=data.min_reward)
        learned, kept = split_by_prompt(found, heldout=data.heldout, seed=data.seed)
        return [episode.messages for episode in learned], [episode.messages for episode in kept]
    source = Sheltered(suite(data.tasks), heldout)
    training = (source.training_task(index) for index in range(data.size))
    return (
        list(demonstrations(training, slips=data.slips, seed=data.seed)),
        list(demonstrations(source.heldout_tasks(), slips=0.0, seed=data.seed)),
    )


def files_of(config: StageConfig) -> list[Path]:
    """The data files that a recipe names."""
    sources = config.environments if isinstance(config, RLRun) else (config.data,)
    return [Path(source.path) for source in sources if isinstance(source, JSONL | Conversations | Episodes)]
