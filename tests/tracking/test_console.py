"""Whoever watches sees how far, how good, how fast, and how long still."""

import io
import re

import pytest
from rich.console import Console

from fettle.tracking import ConsoleTracker

STEP = {"reward/mean": 0.5, "policy/kl": 0.00125, "policy/kl_sampler": 0.1, "speed/tokens_per_second": 12345.6}


class Clock:
    """Seconds as a test wants them."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def out():
    return io.StringIO()


@pytest.fixture
def plain(out, clock):
    return ConsoleTracker(Console(file=out, width=80), clock=clock)


@pytest.fixture
def live(out, clock):
    tracker = ConsoleTracker(Console(file=out, width=80, force_terminal=True, _environ={}), clock=clock)
    yield tracker
    tracker.close()


def test_where_there_is_no_terminal_lines_are_plain(plain, out, clock):
    plain.start(300, "grpo in runs/[demo]")
    clock.now += 2
    plain.log(1, STEP)
    assert out.getvalue() == (
        "grpo in runs/[demo]\nstep 1/300  reward 0.500  KL k3 0.0013  12,346 tokens/s  09:58 left\n"
    )


def test_lines_come_every_few_seconds_but_never_without_the_first_the_last_and_evaluations(plain, out, clock):
    plain.start(300, "grpo")
    for step in range(1, 301):
        clock.now += 1
        plain.log(step, {"reward/mean": 0.5})
        if step == 122:
            plain.log(step, {"heldout/reward": 0.75})
    steps = [int(line.split()[1].split("/")[0]) for line in out.getvalue().splitlines()[1:]]
    assert steps == [1, *range(6, 122, 5), 122, *range(127, 300, 5), 300]


def test_a_resumed_run_counts_from_where_it_stood(plain, out, clock):
    plain.start(40, "grpo", done=20)
    clock.now += 60
    plain.log(21, STEP)
    assert out.getvalue().splitlines()[-1].startswith("step 21/40 ")
    assert out.getvalue().splitlines()[-1].endswith("19:00 left")


def test_hours_are_told_as_hours(plain, out, clock):
    plain.start(3601, "grpo")
    clock.now += 2
    plain.log(1, {})
    assert out.getvalue().splitlines()[-1] == "step 1/3601  2:00:00 left"


def test_losses_are_shown_for_supervised_runs(plain, out):
    plain.start(1, "sft")
    plain.log(0, {"heldout/loss": 5.5})
    plain.log(1, {"loss": 0.25})
    assert out.getvalue().splitlines()[1:] == ["step 0/1  held-out 5.5000", "step 1/1  loss 0.2500"]


def test_without_a_reference_the_distance_is_called_what_it_is(plain, out):
    plain.start(1, "grpo")
    plain.log(1, {"policy/kl_sampler": 0.5})
    assert out.getvalue().splitlines()[-1] == "step 1/1  sampler KL k3 0.5000"


def test_on_a_terminal_one_line_holds_the_latest_of_everything(live, out):
    live.start(40, "grpo")
    live.log(0, {"heldout/reward": 0.75})
    live.log(40, STEP)
    live.close()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).rstrip().splitlines()[-1]
    assert "40/40" in last
    assert "reward 0.500  held-out 0.750  KL k3 0.0013  12,346 tokens/s" in last


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_drawing_gets_plain_lines(out, environment):
    tracker = ConsoleTracker(Console(file=out, force_terminal=True, _environ=environment))
    tracker.start(40, "grpo")
    tracker.log(40, {"reward/mean": 0.5})
    tracker.close()
    assert out.getvalue().endswith("step 40/40  reward 0.500\n")


SCORED = {"reward/mean": 0.225, "reward/learned": 0.225, "reward/true": 0.0}
SCORED_HELDOUT = {"heldout/reward": 0.0, "heldout/learned": 0.243}


def test_beside_a_learned_reward_each_line_says_which_is_which(plain, out):
    plain.start(1, "ppo")
    plain.log(0, SCORED_HELDOUT)
    plain.log(1, SCORED)
    assert out.getvalue().splitlines()[1:] == [
        "step 0/1  held-out true 0.000  learned 0.243",
        "step 1/1  learned 0.225  true 0.000",
    ]


def test_on_one_line_the_two_of_a_step_and_the_two_held_out_stay_apart(live, out):
    live.start(40, "ppo")
    live.log(0, SCORED_HELDOUT)
    live.log(40, SCORED)
    live.close()
    assert "learned 0.225  true 0.000  held-out true 0.000  learned 0.243" in out.getvalue()
