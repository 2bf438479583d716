"""What ``fettle environments new`` writes: a package of one module, and its test."""

PYPROJECT = """\
[project]
name = "{distribution}"
version = "0.1.0"
description = "An environment for Fettle."
requires-python = ">=3.11"
dependencies = ["fettle"]

[project.entry-points."fettle.environments"]
{name} = "{module}:suite"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
include = ["{module}.py"]
"""

MODULE = '''\
"""{name}: the largest of a few numbers is asked for. Put your own tasks and your own reward in their place."""

from random import Random

from fettle.config import Frozen
from fettle.environments import Suite
from fettle.environments.generated import GeneratedSuite, prompt
from fettle.rewards import in_tags
from fettle.types import Task

ASKED = "Give your answer as <answer>...</answer>."


class Settings(Frozen):
    """What a recipe may set, below ``settings``."""

    numbers: int = 4
    """How many there are."""


def suite(settings: Settings, *, seed: int, heldout: int, system: str | None) -> Suite:
    """The tasks: each is drawn from a generator of its own, and those held out are never trained on."""

    def drawn(rng: Random) -> Task:
        numbers = [rng.randrange(100) for _ in range(settings.numbers)]
        question = f"Which is the largest of {{', '.join(map(str, numbers))}}?"
        return Task(prompt(ASKED if system is None else system, question), {{"answer": max(numbers)}}, "{name}")

    return GeneratedSuite("{name}", drawn, in_tags(right), component="right", seed=seed, heldout=heldout)


def right(answer: str, task: Task) -> float:
    """1 for the answer, 0 for anything else."""
    return float(answer == str(task.data["answer"]))
'''

TEST = '''\
"""The environment is found by its name, and pays the right answer and no other."""

import asyncio

from fettle.config import Plugin
from fettle.environments import suite
from fettle.types import Message

CONFIG = Plugin(name="{name}", heldout=20)


async def paid(made, task, reply):
    environment = made.environment()
    await environment.reset(task)
    result = await environment.step(Message("assistant", reply))
    await environment.close()
    return result.reward


def test_the_right_answer_earns_everything_and_others_nothing():
    made = suite(CONFIG)
    task = made.training_task(0)
    assert asyncio.run(paid(made, task, f"<answer>{{task.data['answer']}}</answer>")) == 1
    assert asyncio.run(paid(made, task, "<answer>no idea</answer>")) == 0


def test_one_seed_makes_the_same_tasks_again_and_holds_some_out():
    made = suite(CONFIG)
    assert made.training_task(7) == suite(CONFIG).training_task(7)
    held = {{task.prompt for task in made.heldout_tasks()}}
    assert len(held) == 20
    assert not held & {{made.training_task(index).prompt for index in range(100)}}
'''
