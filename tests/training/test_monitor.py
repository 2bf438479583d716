"""The alarm is raised where learned and true reward part, and nowhere else."""

import asyncio

import pytest

from fettle.config import Monitor
from fettle.tracking import FLAT, HACKING
from fettle.training.monitor import alarm_row, flat, parted
from fettle.types import Task

from .conftest import small, trained
from .games import Game
from .tastes import FIGURES, LETTERS, reward_model

EIGHT = [{"type": "arithmetic", "digits": 1, "heldout": 8}]


def evaluations(learned, true):
    return [{"heldout/learned": x, "heldout/reward": y} for x, y in zip(learned, true, strict=True)]


WATCH = Monitor(window=3, tolerance=0.05)


@pytest.mark.parametrize(
    ("learned", "true", "alarm"),
    [
        ([0, 1, 2], [0.5, 0.6, 0.7], False),  # both rise
        ([0, 1, 2], [0.5, 0.6, 0.4], True),  # they part
        ([0, 1, 2], [0.5, 0.6, 0.56], False),  # within the tolerance
        ([2, 1, 0], [0.5, 0.6, 0.4], False),  # both fall: learning goes wrong, but nothing is gamed
        ([0, 1], [0.6, 0.4], False),  # too early to tell
        ([0, 9, 1, 2, 3], [0.9, 0.6, 0.6, 0.6, 0.6], True),  # the best was long ago
        ([0, 1, 9, 2, 3], [0.9, 0.6, 0.6, 0.6, 0.6], False),  # not learned from the window's beginning to its end
    ],
)
def test_it_is_raised_where_the_learned_reward_rose_and_the_true_one_fell(learned, true, alarm):
    assert parted(evaluations(learned, true), WATCH) is alarm
    assert alarm_row(evaluations(learned, true), WATCH)["alarm/reward_hacking"] == float(alarm)


@pytest.mark.parametrize(
    ("learned", "true", "noted"),
    [
        ([0, 1, 2], [0.0, 0.0, 0.0], True),
        ([0, 1, 2], [0.5, 0.9, 0.54], True),  # within the tolerance from the window's beginning to its end
        ([0, 1, 2], [0.5, 0.5, 0.56], False),  # both rise
        ([2, 1, 0], [0.5, 0.5, 0.5], False),  # neither does
        ([0, 1], [0.5, 0.5], False),  # too early to tell
        ([0, 9, 1, 2, 3], [0.1, 0.1, 0.6, 0.6, 0.6], True),  # the rise was before the window
    ],
)
def test_the_true_reward_is_flat_where_only_the_learned_one_rose(learned, true, noted):
    assert flat(evaluations(learned, true), WATCH) is noted


def test_an_alarm_leaves_nothing_to_note():
    fell = evaluations([0, 1, 2], [0.5, 0.6, 0.4])
    assert flat(fell, WATCH)
    assert alarm_row(fell, WATCH) == {HACKING: 1.0, FLAT: 0.0}
    assert alarm_row(evaluations([0, 1, 2], [0.5, 0.5, 0.5]), WATCH) == {HACKING: 0.0, FLAT: 1.0}


def figures(reply: str, task: Task) -> float:
    """What the reward model was taught to like."""
    return sum(each in FIGURES for each in reply) / max(1, len(reply))


def no_figures(reply: str, task: Task) -> float:
    """What nobody told the reward model: its taste is an exploit."""
    return 1 - figures(reply, task)


def watched(tiny: str, model: str, *, stop: bool = False):
    monitor = {"window": 2, "tolerance": 0.1, "stop": stop}
    return small(
        tiny, steps=24, group_size=8, preset="dapo", dynamic_sampling=None, overlong=None,
        optimizer={"learning_rate": 0.03},
        reward_model={"model": model, "monitor": monitor}, evaluation={"every": 4, "tasks": 8}, environments=EIGHT,
        checkpoints={"every": 8},
    )  # fmt: skip


@pytest.fixture(scope="module")
def likes_figures(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return asyncio.run(reward_model(tiny, folder, liked=FIGURES, disliked=LETTERS))


async def test_an_exploit_raises_the_alarm(tiny, likes_figures, tmp_path):
    rows = (await trained(watched(tiny, likes_figures), tmp_path, [Game(no_figures)])).memory
    assert rows.column(HACKING)[0] == 0.0
    assert 1.0 in rows.column(HACKING)


async def test_an_honest_reward_model_raises_none(tiny, likes_figures, tmp_path):
    rows = (await trained(watched(tiny, likes_figures), tmp_path, [Game(figures)])).memory
    assert rows.column("heldout/reward")[-1] > rows.column("heldout/reward")[0] + 0.1
    assert rows.column(HACKING) == [0.0] * 7


async def test_a_run_that_stops_at_the_alarm_keeps_its_best_by_true_reward(tiny, likes_figures, tmp_path):
    done = await trained(watched(tiny, likes_figures, stop=True), tmp_path, [Game(no_figures)])
    true, alarms = done.memory.column("heldout/reward"), done.memory.column(HACKING)
    assert alarms == [0.0] * (len(alarms) - 1) + [1.0]
    assert done.summary.steps == 4 * (len(alarms) - 1) < 24
    assert done.summary.best_checkpoint.endswith(f"step-{4 * true.index(max(true)):06d}")
    again = await trained(watched(tiny, likes_figures, stop=True), tmp_path, [Game(no_figures)])
    assert (again.summary.steps, again.memory.rows) == (done.summary.steps, [])
