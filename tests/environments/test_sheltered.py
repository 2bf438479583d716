"""What one environment of a recipe holds out, no other trains on."""

import pytest

from fettle.config import Arithmetic
from fettle.environments import Sheltered, suite
from fettle.errors import ConfigError


def test_no_suite_trains_on_what_another_holds_out():
    one, other = (suite(Arithmetic(digits=1, heldout=20, seed=seed)) for seed in (0, 1))
    heldout = {task.prompt for each in (one, other) for task in each.heldout_tasks()}
    bare = {one.training_task(index).prompt for index in range(2000)}
    sheltered = {Sheltered(one, heldout).training_task(index).prompt for index in range(2000)}
    assert bare & heldout
    assert not sheltered & heldout


def test_a_task_that_may_be_trained_on_is_the_suites_own():
    sums = suite(Arithmetic(heldout=5))
    sheltered = Sheltered(sums, {task.prompt for task in sums.heldout_tasks()})
    assert [sheltered.training_task(i).id for i in range(50)] == [sums.training_task(i).id for i in range(50)]


def test_the_same_index_is_the_same_task_also_where_it_had_to_move():
    sums = suite(Arithmetic(digits=1, heldout=5))
    heldout = {sums.training_task(index).prompt for index in range(10)}
    moved = [Sheltered(sums, heldout).training_task(3).id for _ in range(2)]
    assert moved[0] == moved[1] != sums.training_task(3).id


def test_a_space_held_out_whole_is_an_error():
    sums = suite(Arithmetic(digits=1, heldout=5))
    everything = {sums.training_task(index).prompt for index in range(5000)}
    with pytest.raises(ConfigError, match=r"nearly all tasks of .* are held out"):
        Sheltered(sums, everything).training_task(0)


@pytest.mark.parametrize("count", [2, 5])
def test_the_halves_of_what_is_held_out_have_nothing_in_common_and_train_on_the_same(count):
    sums = suite(Arithmetic(heldout=count))
    whole, first, second = (Sheltered(sums, (), half) for half in (None, "first", "second"))
    parts = [[task.id for task in part.heldout_tasks()] for part in (first, second)]
    assert sorted(parts[0] + parts[1]) == sorted(task.id for task in whole.heldout_tasks())
    assert (len(parts[0]), len(parts[1])) == (count - count // 2, count // 2)
    assert first.training_task(3).id == second.training_task(3).id


def test_half_of_one_is_refused():
    with pytest.raises(ConfigError, match="hold out 2 or more"):
        Sheltered(suite(Arithmetic(heldout=1)), (), "second").heldout_tasks()
