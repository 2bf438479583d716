"""Tasks that the reasoning-gym package generates, scored by its own scorers."""

import dataclasses
import re
import sys
from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Any

from reasoning_gym.factory import DATASETS, create_dataset

from fettle.config import ReasoningGym
from fettle.environments.base import Suite
from fettle.environments.generated import GeneratedSuite, prompt
from fettle.errors import ConfigError, DataError, EnvironmentFault, ScorerError, ScorerTimeout, did_you_mean
from fettle.rewards import RewardFunction, in_tags
from fettle.sandbox import isolation, sandbox
from fettle.types import Task

CRASHES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the package raises where a setting, a seed or an answer is not to its liking."""

UNSEEDED = "it draws from a generator that no seed reaches, so that no run could be repeated or resumed"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "codeio": UNSEEDED,
        "list_functions": UNSEEDED,
        "complex_arithmetic": "its scorer pays in full for the answer nan",
        "composite": "it is a mixture: give each of its parts an environment with a weight",
        "rush_hour": "an answer of a few characters can keep its scorer busy, which finds no file in a sandbox",
        "game_of_life_halting": "its scorer pays in full for any reply",
    }
)
"""Why a dataset cannot be trained on."""

SUM = re.compile(r"[0-9+*/() \n.-]*")
EXPRESSION = re.compile(r"(?:[0-9+*/() \n-]|(?<![a-zA-Z])(?:exp|log|sqrt|a?(?:sin|cos|tan)|[a-zA-Z])(?![a-zA-Z]))*")
NUMBERS = re.compile(r"[0-9,\[\] \n-]*")

EXECUTED: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "binary_matrix": NUMBERS,
        "countdown": SUM,
        "intermediate_integration": EXPRESSION,
        "n_queens": re.compile(r"[_Q \n]*"),
        "polynomial_multiplication": EXPRESSION,
        "puzzle24": SUM,
        "simple_integration": EXPRESSION,
        "spiral_matrix": NUMBERS,
        "string_insertion": re.compile(r"[a-zA-Z]*"),
    }
)
"""Datasets whose scorers run the answer as Python code: in the sandbox, and only an answer that is of its form. What is
not is wrong unseen, for code that ran in there could write its own score."""

BUSY: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "coin_flip": re.compile(r"[0-9.,/eE+ -]*"),
        "propositional_logic": re.compile(r"[A-Z()∨∧→↔¬ ]*"),
    }
)
"""Datasets whose scorers an answer of a few characters can keep busy without end; the sandbox ends them."""

INSIDE: Mapping[str, re.Pattern[str]] = MappingProxyType({**EXECUTED, **BUSY})

ANYTHING = re.compile(r".*", re.DOTALL)
"""The form of an answer to a dataset whose scorer only compares."""

SCORE = "fettle.environments.gym_scorers:score"
"""What scores those, in the sandbox."""

NO_NUMBER = re.compile(r"(?<![a-z])s?nan[0-9]*(?![a-z])", re.IGNORECASE)
"""What Python reads as a number that is none. It differs from nothing by more than is allowed, so that scorers which
look for a difference pay for it: ``number_sorting`` pays in full for as many as there are numbers."""

LONGEST = 2000
"""Characters of an answer that is scored there."""

HASH_ORDERED = frozenset({"isomorphic_strings", "knight_swap", "ransom_note", "word_ladder"})
"""Datasets whose items depend on the order of Python's sets, which differs from process to process."""


def suite(config: ReasoningGym) -> Suite:
    """The tasks of ``config.task``. Each is the one item of a dataset with a seed of its own, since not every dataset
    has items at every index; the few that read large files when made are therefore slow (``arc_agi``: 0.4 s a task).

    Raises:
        ConfigError: there is no such dataset, it is refused, its settings are wrong, or its scorer runs answers as code
            and nothing here isolates that.
    """
    _check_task(config.task)
    _check_settings(config.task, config.settings)
    try:
        scoring = create_dataset(config.task, seed=0, size=1, **config.settings)
    except (*CRASHES, OSError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"reasoning-gym refuses the settings {config.settings} of {config.task} ({what}): mend them"
        ) from error

    def draw(rng: Random) -> Task:
        # Some datasets draw with numpy, whose seeds have at most 32 bits.
        return _task(config, seed=rng.getrandbits(31))

    inside = config.task in INSIDE or config.scoring == "sandbox"
    reward = in_tags(scored_inside(config) if inside else scored(scoring, partial_credit=config.partial_credit))
    return GeneratedSuite(config.task, draw, reward, component=config.task, seed=config.seed, heldout=config.heldout)


def scored(dataset: Any, *, partial_credit: bool) -> RewardFunction:
    """The score that ``dataset`` gives an answer; without partial credit, 1 for the full score and 0 for less.

    Several scorers crash on answers they cannot read. Whether the answer or the scorer is at fault is found by
    trial: the scorer is given the task's own answer (an empty one, where the task has none). If that goes well, an
    answer that crashes it is a wrong answer, and earns 0, like any other that cannot be read; otherwise a policy
    could escape a wrong answer's reward by crashing the scorer. If not, it is a fault. An answer with a number that is
    none is wrong unseen, unless the task's own has one.

    The reward raises:
        EnvironmentFault: the scorer fails on the task's own answer too.
    """

    def score(answer: str, task: Task) -> float:
        if _is_no_number(answer, task):
            return 0.0
        try:
            paid = dataset.score_answer(answer, dict(task.data))
        except CRASHES:
            _check_scorer(dataset, task)
            return 0.0
        return _credited(paid, partial_credit=partial_credit)

    return score


def scored_inside(config: ReasoningGym) -> RewardFunction:
    """As :func:`scored`, by a scorer that works in the sandbox; an answer that it is still busy with there when the
    time is up is wrong.

    The reward raises:
        EnvironmentFault: the scorer fails on the task's own answer too.
        SandboxError: the sandbox failed.

    Raises:
        ConfigError: nothing here isolates code as the settings ask.
    """
    isolation(config.sandbox)
    place, form = sandbox(config.sandbox), INSIDE.get(config.task, ANYTHING)

    async def paid(answer: str, task: Task) -> float:
        found = await place.trusted(SCORE, config.task, config.settings, answer, dict(task.data))
        return float(found)  # type: ignore[arg-type]

    async def score(answer: str, task: Task) -> float:
        if len(answer) > LONGEST or not form.fullmatch(answer) or _is_no_number(answer, task):
            return 0.0
        try:
            return _credited(await paid(answer, task), partial_credit=config.partial_credit)
        except ScorerTimeout:
            return 0.0
        except ScorerError:
            right = task.data["answer"]
            own = await paid("" if right is None else str(right), task)
            if right is not None and own < 1:
                raise EnvironmentFault(
                    f"the scorer of {task.source} pays only {own} for the task's own answer {task.data['answer']!r}"
                ) from None
            return 0.0

    return score


def _is_no_number(answer: str, task: Task) -> bool:
    """Whether an answer has a number that is none, and the task's own has not."""
    return bool(NO_NUMBER.search(answer)) and not NO_NUMBER.search(str(task.data["answer"]))


def _credited(paid: float, *, partial_credit: bool) -> float:
    if partial_credit or not paid < 1:  # what is no number at all is passed on, to be refused as a fault
        return float(paid)
    return 0.0


def _check_scorer(dataset: Any, task: Task) -> None:
    own = task.data["answer"]
    try:
        paid = dataset.score_answer("" if own is None else own, dict(task.data))
    except CRASHES as error:
        what = f"{type(error).__name__}: {error}"
        raise EnvironmentFault(f"the scorer of {task.source} fails on the task's own answer too ({what})") from error
    if own is not None and paid < 1:
        raise EnvironmentFault(f"the scorer of {task.source} pays only {paid} for the task's own answer {own!r}")


def _task(config: ReasoningGym, *, seed: int) -> Task:
    try:
        item = create_dataset(config.task, seed=seed, size=1, **config.settings)[0]
    except CRASHES as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(
            f"reasoning-gym cannot make a {config.task} task of seed {seed} ({what}): change its settings"
        ) from error
    data = {"answer": item["answer"], "question": item["question"], "metadata": item["metadata"]}
    if "expression" in item["metadata"]:
        data["expression"] = item["metadata"]["expression"]
    return Task(prompt(config.system, item["question"]), data, config.task)


def _check_task(task: str) -> None:
    if task not in DATASETS:
        raise ConfigError(f"reasoning-gym has no dataset {task!r}{did_you_mean(task, DATASETS)}")
    if task in REFUSED:
        raise ConfigError(f"{task} of reasoning-gym cannot be used: {REFUSED[task]}")
    if task in HASH_ORDERED and sys.flags.hash_randomization:
        raise ConfigError(
            f"{task} of reasoning-gym makes other tasks in each process, so no run could be repeated or resumed:"
            " start Python with PYTHONHASHSEED=0"
        )


def _check_settings(task: str, settings: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(DATASETS[task][1])} - {"seed", "size"}
    for name in settings:
        if name in ("seed", "size"):
            raise ConfigError(
                f"settings.{name} of {task} cannot be set: tasks are endless, and seeded by the environment's own seed"
            )
        if name not in known:
            raise ConfigError(f"{task} of reasoning-gym has no setting {name!r}{did_you_mean(name, known)}")
