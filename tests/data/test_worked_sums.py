from itertools import pairwise
from random import Random

import pytest

from fettle.data import demonstrations, solution
from fettle.errors import DataError
from fettle.rewards import tagged_answer
from fettle.types import Message, Task


def drawn(rng: Random) -> str:
    terms = [rng.randint(-99, 999) if rng.random() < 0.5 else rng.randint(0, 9) for _ in range(rng.randint(2, 5))]
    return str(terms[0]) + "".join(f" {rng.choice('+-')} {term}" for term in terms[1:])


def evaluated(expression: str) -> int:
    first, *rest = expression.split()
    return int(first) + sum(
        (1 if sign == "+" else -1) * int(term) for sign, term in zip(rest[::2], rest[1::2], strict=True)
    )


def answer(text: str) -> int:
    tagged = tagged_answer(text)
    assert tagged is not None, text
    return int(tagged)


def test_ten_thousand_solutions_are_right():
    rng = Random("right")
    for _ in range(10_000):
        expression = drawn(rng)
        text = solution(expression, slip=False, rng=rng)
        assert answer(text) == evaluated(expression), text
        assert all(
            evaluated(left) == int(right) for left, right in (step.split(" = ") for step in text.splitlines()[:-1])
        )


def test_ten_thousand_slips_are_wrong_in_one_step_only():
    rng = Random("wrong")
    for _ in range(10_000):
        expression = drawn(rng)
        text = solution(expression, slip=True, rng=rng)
        steps = [step.split(" = ") for step in text.splitlines()[:-1]]
        assert answer(text) != evaluated(expression), text
        assert answer(text) == int(steps[-1][1])
        assert sum(evaluated(left) != int(right) for left, right in steps) == 1
        assert all(after[0].startswith(before[1] + " ") for before, after in pairwise(steps))


def test_a_solution_works_from_left_to_right():
    assert solution("12 + 34 - 5", slip=False, rng=Random(0)) == "12 + 34 = 46\n46 - 5 = 41\n<answer>41</answer>"


@pytest.mark.parametrize(
    ("expression", "slips"),
    [
        ("47 + 38", {75}),  # the carry of 7 + 8
        ("52 - 38", {24}),  # the borrow for 2 - 8
        ("38 - 52", {-24}),  # the same, seen from the other side
        ("-47 - 38", {-75}),
        ("199 + 1", {190, 100}),  # either of two carries
        ("100 - 1", {109, 199}),  # either of two borrows
        ("50 + 60", {100, 109, 111, 120}),  # nothing to carry but a new column: off by one or by ten
        ("3 + 4", {6, 8, 17}),
        ("4 - 4", {1, 10}),
    ],
)
def test_a_slip_forgets_a_carry_or_a_borrow_where_there_is_one(expression, slips):
    rng = Random(0)
    assert {answer(solution(expression, slip=True, rng=rng)) for _ in range(100)} == slips


def test_the_slip_is_in_the_step_that_has_something_to_carry():
    slipped = solution("20 + 30 + 27 + 35 + 10", slip=True, rng=Random(0))
    assert slipped.splitlines()[2] == "77 + 35 = 102"


@pytest.mark.parametrize("expression", ["", "7", "3 * 4", "3 + 4 =", "3+4", "1.5 + 2", "3 + x", "(3 + 4)"])
def test_what_is_not_a_sum_is_an_error(expression):
    with pytest.raises(DataError, match="only sums of whole numbers"):
        solution(expression, slip=False, rng=Random(0))


def tasks(size: int) -> list[Task]:
    return [
        Task((Message("user", f"{n} + 8 ="),), {"answer": str(n + 8), "expression": f"{n} + 8"}, "sums")
        for n in range(size)
    ]


@pytest.mark.parametrize("slips", [0.0, 0.3, 1.0])
def test_the_share_of_slips_is_as_asked(slips):
    made = list(demonstrations(tasks(5000), slips=slips, seed=0))
    wrong = sum(
        answer(talk[-1].content) != int(task.data["answer"]) for task, talk in zip(tasks(5000), made, strict=True)
    )
    assert wrong / 5000 == pytest.approx(slips, abs=0.02)  # three standard deviations of 5000 draws


def test_a_demonstration_is_the_prompt_and_the_solution():
    ((asked, solved),) = demonstrations(tasks(1), slips=0.0, seed=0)
    assert (asked, solved) == (Message("user", "0 + 8 ="), Message("assistant", "0 + 8 = 8\n<answer>8</answer>"))


def test_demonstrations_repeat_for_a_seed_and_differ_between_seeds():
    first, again, other = (list(demonstrations(tasks(50), slips=0.5, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_a_task_without_an_expression_is_an_error():
    task = Task((Message("user", "?"),), {"answer": "7"}, "riddles")
    with pytest.raises(DataError, match="a task of riddles holds no expression"):
        list(demonstrations([task], slips=0.0, seed=0))
