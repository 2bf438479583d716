from random import Random

import pytest

from fettle.environments.generated import GeneratedSuite
from fettle.errors import ConfigError
from fettle.rewards import number
from fettle.types import Message, Task


def suite(*, space: int, heldout: int, seed: int = 0, answers: int = 1) -> GeneratedSuite:
    """A suite that can ask ``space`` things, each with one of ``answers`` answers."""

    def draw(rng: Random) -> Task:
        return Task((Message("user", str(rng.randrange(space))),), {"answer": rng.randrange(answers)}, "numbers")

    return GeneratedSuite("numbers", draw, number, component="number", seed=seed, heldout=heldout)


def test_a_crowded_space_is_split_without_overlap():
    made = suite(space=20, heldout=15)
    held = {task.id for task in made.heldout_tasks()}
    trained = {made.training_task(index).id for index in range(200)}
    assert (len(held), len(trained)) == (15, 5)
    assert not held & trained


def test_one_question_with_two_answers_is_on_one_side():
    made = suite(space=20, heldout=10, answers=5)
    held = {task.prompt for task in made.heldout_tasks()}
    assert not held & {made.training_task(index).prompt for index in range(200)}


def test_neighbouring_seeds_and_indices_share_no_stream():
    one, other = suite(space=10**12, heldout=5), suite(space=10**12, heldout=5, seed=1)
    drawn = [made.training_task(index).id for made in (one, other) for index in range(200)]
    assert len(set(drawn)) == 400


def test_any_index_will_do():
    made = suite(space=10**6, heldout=5)
    assert made.training_task(10**15) == made.training_task(10**15)


def test_fewer_tasks_than_are_held_out_is_an_error():
    with pytest.raises(ConfigError, match="numbers: heldout is 21, but its settings make only 20 tasks"):
        suite(space=20, heldout=21)


def test_nothing_left_to_train_on_is_an_error_at_once():
    with pytest.raises(ConfigError, match="too few tasks to hold out 20"):
        suite(space=20, heldout=20)
