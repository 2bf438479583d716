"""The alarms are given where replies earn more by what nobody wanted, and by nothing that a healthy run does."""

import pytest

from fettle.config import Alarms
from fettle.environments import Observation, StepResult
from fettle.tracking import COMPONENT, LENGTH, REPETITION
from fettle.training.watching import alarms, fallen, repetition, rose, signs
from fettle.types import Completion, Message, Task, Trajectory, Turn

from .conftest import small, trained

WATCH = Alarms(window=3, fall=0.2, length=3.0, repetition=0.3)


def evaluations(**columns):
    names = {
        "reward": "heldout/reward",
        "learned": "heldout/learned",
        "tokens": "heldout/tokens_mean",
        "repeated": "heldout/repetition",
    }
    rows = zip(*columns.values(), strict=True)
    return [{names.get(n, f"heldout/component/{n}"): x for n, x in zip(columns, row, strict=True)} for row in rows]


def given(**columns) -> set[str]:
    return {name for name, told in alarms(evaluations(**columns), WATCH).items() if told}


UP, DOWN = [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"reward": UP}, set()),
        ({"reward": UP, "right": UP, "short": UP}, set()),
        ({"reward": UP, "right": DOWN, "short": UP}, {COMPONENT}),
        ({"reward": DOWN, "right": DOWN, "short": UP}, set()),  # going wrong, but nothing is gained by it
        ({"reward": UP, "right": [0.4, 0.41, 0.39, 0.35], "short": UP}, set()),  # within what it may fall
        ({"reward": UP, "right": [0.9, 0.2, 0.3, 0.5]}, set()),  # on its way up again
        ({"reward": UP, "penalty": [-0.1, -0.1, -0.2, -0.3]}, {COMPONENT}),
        ({"reward": UP, "tokens": [10, 20, 29, 30]}, set()),
        ({"reward": UP, "tokens": [10, 20, 30, 31]}, {LENGTH}),
        ({"reward": DOWN, "tokens": [10, 20, 30, 99]}, set()),
        ({"reward": DOWN, "learned": UP, "tokens": [10, 20, 30, 99]}, {LENGTH}),  # what is learned from rises
        ({"reward": UP, "repeated": [0.1, 0.2, 0.3, 0.39]}, set()),
        ({"reward": UP, "repeated": [0.1, 0.2, 0.3, 0.41]}, {REPETITION}),
        ({"reward": UP, "repeated": [0.1, 0.9, 0.9, 0.3]}, set()),
    ],
)
def test_alarms(columns, told):
    assert given(**columns) == told


def test_too_few_evaluations_say_nothing_of_components():
    assert given(reward=[0.1, 0.2], right=[1.0, 0.0]) == set()
    assert given(reward=[0.1], tokens=[99]) == set()


def test_evaluations_from_before_there_were_signs_are_passed_over():
    rows = [{"heldout/reward": 0.1}, {"heldout/reward": 0.2}, *evaluations(reward=[0.3], right=[0.5], tokens=[5])]
    assert fallen(rows, WATCH) == []
    assert rose(rows, 3)
    assert not any(alarms(rows, WATCH).values())


def test_repetition_is_of_one_reply():
    assert repetition([1, 2, 3, 4]) is None
    assert repetition(list(range(40))) == 0.0
    assert repetition([1, 2, 3, 4, 5] * 8) == pytest.approx(32 / 37)


def episode(tokens, **components) -> Trajectory:
    turn = Turn([1], Completion(list(tokens), [0.0] * len(tokens), "stop", 0), sum(components.values()))
    return Trajectory(Task((Message("user", "x"),), {}, "x"), (turn,), (), True, False, components)


def test_components_that_trade_against_each_other_correlate_below_zero():
    row = signs([episode([1, 2], right=1.0, short=0.0), episode([1], right=0.0, short=0.5), episode([1], right=0.5)])
    assert row["heldout/component/right"] == 0.5
    assert row["heldout/correlation/right"] < -0.8
    assert row["heldout/correlation/right"] == pytest.approx(row["heldout/correlation/short"])
    assert "heldout/repetition" not in row


def test_one_component_or_none_that_varies_has_no_correlation():
    assert signs([episode([1], right=1.0), episode([1], right=0.0)]) == {"heldout/component/right": 0.5}
    row = signs([episode([1], right=1.0, same=0.1), episode([1], right=0.0, same=0.1)])
    assert not any(name.startswith("heldout/correlation") for name in row)


class Paid:
    """Satisfies ``Suite``: eight questions, whose replies are paid by ``parts``."""

    name = "paid"

    def __init__(self, parts) -> None:
        self._parts = parts

    def training_task(self, index):
        return Task((Message("user", f"paid {index}"),), {"answer": str(index)}, self.name)

    def heldout_tasks(self):
        return [self.training_task(-1 - index) for index in range(8)]

    def environment(self):
        return PaidOnce(self._parts)


class PaidOnce:
    def __init__(self, parts) -> None:
        self._parts = parts

    async def reset(self, task):
        return Observation(task.prompt, one_reply=True)

    async def step(self, action):
        components = self._parts(action.content)
        return StepResult((), sum(components.values()), True, False, components)

    async def close(self):
        pass


def repeats(reply: str) -> dict[str, float]:
    """The exploit: a bonus for each e, however many, beside a reward for saying little."""
    return {"brief": max(0.0, 1 - len(reply) / 20), "e": 0.3 * reply.count("e")}


def honest(reply: str) -> dict[str, float]:
    """One letter is wanted, and one of it is enough."""
    return {"has": float("e" in reply), "brief": max(0.0, 1 - len(reply) / 40)}


def watched(tiny: str):
    return small(
        tiny, steps=24, group_size=8, groups_per_step=4, preset="dapo", dynamic_sampling=None, overlong=None,
        optimizer={"learning_rate": 0.03}, sampling={"max_tokens": 24}, evaluation={"every": 4, "tasks": 8},
        environments=[{"type": "arithmetic", "digits": 1, "heldout": 8}], checkpoints={"every": 24},
    )  # fmt: skip


async def test_an_exploit_sounds_the_alarms(tiny, tmp_path):
    rows = (await trained(watched(tiny), tmp_path, [Paid(repeats)])).memory
    assert rows.column("heldout/reward")[-1] > rows.column("heldout/reward")[0]
    assert 1.0 in rows.column(COMPONENT)
    assert 1.0 in rows.column(REPETITION)


async def test_a_healthy_run_sounds_none(tiny, tmp_path):
    rows = (await trained(watched(tiny), tmp_path, [Paid(honest)])).memory
    assert rows.column("heldout/reward")[-1] > rows.column("heldout/reward")[0] + 0.2
    for alarm in (COMPONENT, LENGTH, REPETITION):
        assert set(rows.column(alarm)) == {0.0}
