import pytest

from fettle.data import worked_pairs
from fettle.errors import DataError
from fettle.rewards import tagged_answer
from fettle.types import Message, Task


def tasks(size: int) -> list[Task]:
    return [
        Task((Message("user", f"{n} + 38 ="),), {"answer": str(n + 38), "expression": f"{n} + 38"}, "sums")
        for n in range(size)
    ]


@pytest.mark.parametrize("malformed", [0.0, 0.25, 1.0])
def test_the_chosen_is_right_and_the_rejected_wrong_or_badly_tagged(malformed):
    pairs = list(worked_pairs(tasks(4000), malformed=malformed, seed=0))
    answers = [(tagged_answer(pair.chosen), tagged_answer(pair.rejected)) for pair in pairs]
    assert [chosen for chosen, _ in answers] == [task.data["answer"] for task in tasks(4000)]
    assert all(chosen != rejected for chosen, rejected in answers)
    untagged = sum(rejected is None for _, rejected in answers)
    assert untagged / 4000 == pytest.approx(malformed, abs=0.025)  # three standard deviations of 4000 draws


def test_what_is_badly_tagged_is_otherwise_the_same_work():
    """So that nothing but the tags tells the two apart."""
    spoilt = {
        pair.rejected.removeprefix(pair.chosen.rpartition("\n")[0]).replace("38", "n")
        for pair in worked_pairs(tasks(1) * 100, malformed=1.0, seed=0)
    }
    assert spoilt == {"\nn", "\n<answer>n", "\nn</answer>", "\n<answer>n</answer>\n<answer>n</answer>"}


def test_pairs_repeat_for_a_seed_and_differ_between_seeds():
    first, again, other = (list(worked_pairs(tasks(50), malformed=0.5, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_a_pair_is_drawn_for_its_place_alone():
    assert list(worked_pairs(tasks(9), malformed=0.5, seed=0))[:4] == list(
        worked_pairs(tasks(4), malformed=0.5, seed=0)
    )


def test_a_task_without_an_expression_is_an_error():
    task = Task((Message("user", "?"),), {"answer": "7"}, "riddles")
    with pytest.raises(DataError, match="a task of riddles holds no expression"):
        list(worked_pairs([task], malformed=0.5, seed=0))
