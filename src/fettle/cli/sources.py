"""Where a run's data come from: demonstrations, pairs and ratings to learn from, and those it is scored on."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from random import Random

from fettle.config import (
    JSONL,
    Code,
    Conversations,
    Debate,
    DemonstrationsConfig,
    Dialogue,
    Episodes,
    Issues,
    ListedProblems,
    Mathematics,
    MathematicsFile,
    PreferenceDataConfig,
    Preferences,
    Questions,
    Ratings,
    RLRun,
    StageConfig,
    Tools,
    WorkedCalls,
    WorkedCode,
    WorkedDebates,
    WorkedMathematics,
)
from fettle.config.parts import Half
from fettle.data import (
    Conversation,
    Episode,
    Preference,
    Rating,
    conversations,
    demonstrations,
    episodes,
    held_apart,
    preferences,
    programs,
    ratings,
    split,
    split_by_prompt,
    worked_calls,
    worked_mathematics,
    worked_pairs,
)
from fettle.data.splits import question
from fettle.environments import Sheltered, halved, sheltered, suite
from fettle.environments.debate import shown
from fettle.environments.tools import calculator, tool
from fettle.randomness import key
from fettle.types import Message, Task

Prompt = tuple[Message, ...]


def conversations_of(
    data: DemonstrationsConfig, heldout: Collection[Prompt], half: Half = None
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """What to learn from, and what to be scored on, or half of it."""
    if isinstance(data, Conversations):
        found, kept = _told(data)
        return found, halved(kept, half, lambda talk: question(talk[:-1]))
    if isinstance(data, Episodes):
        learned, scored = episodes_of(data)
        scored = halved(scored, half, lambda episode: question(episode.prompt))
        return [episode.messages for episode in learned], [episode.messages for episode in scored]
    if isinstance(data, WorkedDebates):
        return _debates(data, heldout, half)
    source = Sheltered(suite(data.tasks), heldout, half)
    training = (source.training_task(index) for index in range(data.size))
    if isinstance(data, WorkedCalls):
        offered = tool(calculator).spec
        return (
            list(worked_calls(training, [offered], calls=offered.name, guesses=data.guesses, seed=data.seed)),
            list(worked_calls(source.heldout_tasks(), [offered], calls=offered.name, guesses=0.0, seed=data.seed)),
        )
    if isinstance(data, WorkedCode):
        return (
            list(programs(list(training), slips=data.slips, seed=data.seed)),
            list(programs(source.heldout_tasks(), slips=0.0, seed=data.seed)),
        )
    written = worked_mathematics if isinstance(data, WorkedMathematics) else demonstrations
    return (
        list(written(training, slips=data.slips, seed=data.seed)),
        list(written(source.heldout_tasks(), slips=0.0, seed=data.seed)),
    )


def _told(data: Conversations) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    found = conversations(data.path)
    if data.heldout_path is None:
        return split(found, heldout=data.heldout, seed=data.seed)
    apart = conversations(data.heldout_path)
    return found, held_apart(
        found, apart, lambda talk: talk[:-1], most=data.heldout, seed=data.seed, path=data.heldout_path
    )


def _debates(
    data: WorkedDebates, heldout: Collection[Prompt], half: Half
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    source = sheltered(suite(data.tasks), heldout, half)

    def argued(tasks: Iterable[Task], purpose: str) -> list[Conversation]:
        return [
            conversation
            for index, task in enumerate(tasks)
            for conversation in shown(data.tasks, task, Random(key(data.seed, purpose, index))).values()
        ]

    training = argued((source.training_task(index) for index in range(data.size)), "debate")
    return training, argued(source.heldout_tasks(), "heldout debate")


def episodes_of(data: Episodes) -> tuple[Sequence[Episode], Sequence[Episode]]:
    """Episodes with what they earned, to learn from, and to be scored on."""
    found = episodes(data.path, min_reward=data.min_reward)
    if data.heldout_path is None:
        return split_by_prompt(found, heldout=data.heldout, seed=data.seed)
    apart = episodes(data.heldout_path)
    return found, held_apart(
        found, apart, lambda episode: episode.prompt, most=data.heldout, seed=data.seed, path=data.heldout_path
    )


def comparisons_of(
    data: PreferenceDataConfig, heldout: Collection[Prompt], half: Half = None
) -> tuple[Sequence[Preference | Rating], Sequence[Preference | Rating]]:
    """Pairs or ratings to learn from, and to be scored on, or half of these."""
    if isinstance(data, Preferences | Ratings):
        learned, kept = _rated(data)
        return learned, halved(kept, half, lambda answer: question(answer.prompt))
    source = Sheltered(suite(data.tasks), heldout, half)
    training = (source.training_task(index) for index in range(data.size))
    return (
        list(worked_pairs(training, malformed=data.malformed, seed=data.seed)),
        list(worked_pairs(source.heldout_tasks(), malformed=data.malformed, seed=data.seed)),
    )


def _rated(data: Preferences | Ratings) -> tuple[Sequence[Preference | Rating], Sequence[Preference | Rating]]:
    if isinstance(data, Preferences):
        return split_by_prompt(preferences(data.path), heldout=data.heldout, seed=data.seed)
    return split_by_prompt(ratings(data.path), heldout=data.heldout, seed=data.seed)


def files_of(config: StageConfig) -> list[Path]:
    """The data files that a recipe names."""
    if isinstance(config, RLRun):
        sources = (*config.environments, *((config.rehearsal.data,) if config.rehearsal is not None else ()))
    else:
        sources = (config.data,)
    sources = (*sources, *(source.problems for source in sources if isinstance(source, Code | Mathematics)))
    with_tools = [source for source in sources if isinstance(source, Tools)]
    corpora = [Path(source.corpus) for source in with_tools if source.corpus is not None]
    sources = (*sources, *(source.tasks for source in with_tools))
    kinds = (
        JSONL
        | Questions
        | MathematicsFile
        | ListedProblems
        | Debate
        | Dialogue
        | Issues
        | Conversations
        | Episodes
        | Preferences
        | Ratings
    )
    named = [Path(source.path) for source in sources if isinstance(source, kinds) and source.path is not None]
    with_apart = [source for source in sources if isinstance(source, Issues | Conversations | Episodes)]
    apart = [Path(source.heldout_path) for source in with_apart if source.heldout_path is not None]
    return named + corpora + apart
