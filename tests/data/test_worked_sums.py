import re
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


def sides(text: str) -> list[tuple[str, int]]:
    """Each line's left side, its column's name taken off, and its right side."""
    lines = [line.split(" = ") for line in text.splitlines()[:-1]]
    return [(re.sub(r"^(ones|tens|hundreds|thousands) ", "", left), int(right)) for left, right in lines]


def test_ten_thousand_solutions_are_right_line_by_line():
    rng = Random("right")
    for _ in range(10_000):
        expression = drawn(rng)
        text = solution(expression, slip=False, rng=rng)
        assert answer(text) == evaluated(expression), text
        assert all(evaluated(left) == right for left, right in sides(text)), text


def test_ten_thousand_slips_are_wrong():
    rng = Random("wrong")
    for _ in range(10_000):
        expression = drawn(rng)
        text = solution(expression, slip=True, rng=rng)
        assert answer(text) != evaluated(expression), text
        assert answer(text) == sides(text)[-1][1], text
        assert sum(evaluated(left) != right for left, right in sides(text)) <= 1, text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("42 - 25", "tens 4 - 2 = 2\nones 2 - 5 = -3\n20 - 3 = 17\n<answer>17</answer>"),
        ("23 - 60", "tens 2 - 6 = -4\nones 3 - 0 = 3\n-40 + 3 = -37\n<answer>-37</answer>"),
        ("-7 + 105", "hundreds 0 + 1 = 1\ntens 0 + 0 = 0\nones -7 + 5 = -2\n100 + 0 - 2 = 98\n<answer>98</answer>"),
        ("3 + 4 - -2", "ones 3 + 4 + 2 = 9\n<answer>9</answer>"),
    ],
)
def test_a_solution_works_in_columns(expression, text):
    assert solution(expression, slip=False, rng=Random(0)) == text


@pytest.mark.parametrize(
    ("expression", "slips"),
    [
        ("47 + 38", {75, 9}),  # the carry of 7 + 8; the sign
        ("52 - 38", {24, 90}),  # the borrow for 2 - 8; the sign
        ("50 + 60", {-10}),  # nothing to carry: the sign alone
        ("199 + 1", {190, 198}),  # the ones' carry, worth ten; the tens have none of their own
        ("7 + 0", {6, 8}),  # nothing to misread: off by one
    ],
)
def test_a_slip_forgets_a_carry_or_misreads_a_sign(expression, slips):
    rng = Random(0)
    assert {answer(solution(expression, slip=True, rng=rng)) for _ in range(100)} == slips


def test_about_half_the_slips_with_something_to_carry_forget_it():
    rng = Random(0)
    forgotten = sum(answer(solution("47 + 38", slip=True, rng=rng)) == 75 for _ in range(2000))
    assert forgotten / 2000 == pytest.approx(0.5, abs=0.04)


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
    assert (asked, solved) == (Message("user", "0 + 8 ="), Message("assistant", "ones 0 + 8 = 8\n<answer>8</answer>"))


def test_demonstrations_repeat_for_a_seed_and_differ_between_seeds():
    first, again, other = (list(demonstrations(tasks(50), slips=0.5, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_a_task_without_an_expression_is_an_error():
    task = Task((Message("user", "?"),), {"answer": "7"}, "riddles")
    with pytest.raises(DataError, match="a task of riddles holds no expression"):
        list(demonstrations([task], slips=0.0, seed=0))
