from random import Random

import pytest

from fettle.config import Arithmetic
from fettle.environments import suite
from fettle.environments.arithmetic import drawn_sum
from fettle.errors import ConfigError


def evaluated(expression: str) -> int:
    return sum(int(term) for term in expression.replace("- ", "-").replace("+ ", "").split())


def test_the_question_is_chain_sums():
    task = suite(Arithmetic(heldout=5)).training_task(0)
    expression = task.data["expression"]
    assert task.prompt[-1].content == f"State the final answer to the following arithmetic problem: {expression} ="
    assert int(task.data["answer"]) == evaluated(expression)


@pytest.mark.parametrize(("digits", "numbers"), [(1, range(10)), (2, range(10, 100)), (4, range(1000, 10_000))])
def test_difficulty_is_terms_and_digits(digits, numbers):
    rng = Random(0)
    for _ in range(300):
        expression, value = drawn_sum(rng, terms=(2, 4), digits=digits)
        terms = [int(part) for part in expression.split() if part not in "+-"]
        assert 2 <= len(terms) <= 4
        assert all(term in numbers for term in terms)
        assert value == evaluated(expression)


def test_the_system_message_can_be_left_out():
    assert [m.role for m in suite(Arithmetic(heldout=5, system=None)).training_task(0).prompt] == ["user"]


def test_holding_out_every_single_digit_sum_is_an_error():
    with pytest.raises(ConfigError, match="too few tasks to hold out 200"):
        suite(Arithmetic(digits=1, heldout=200))
