import pytest

from fettle.environments.math_answers import TOGETHER, check_readable, symbols
from fettle.errors import ConfigError, DataError
from fettle.rewards.mathematics import SETTINGS
from fettle.sandbox import sandbox
from fettle.types import Message, Task


def tasks(*answers) -> dict[str, Task]:
    return {
        f"file:{line}": Task((Message("user", f"{line}?"),), {"answer": answer}, "file")
        for line, answer in enumerate(answers, 1)
    }


@pytest.mark.parametrize("answer", ["1/2", "x > 3", "blue", 7, r"\pm 3", "x^2 + 1", r"\frac{1}{"])
def test_what_says_something_is_readable(answer):
    check_readable(tasks(answer))


@pytest.mark.parametrize("answer", [None, ["4"], "", "$$", "7" * 400])
def test_what_says_nothing_is_named_by_its_place(answer):
    with pytest.raises(DataError, match=r"^file:2: "):
        check_readable(tasks("7", answer))


def test_answers_that_are_told_exactly_need_no_symbols():
    assert symbols(tasks("1/2", "x > 3", "blue", 7), SETTINGS) is None


def test_expressions_have_a_place_where_they_are_compared():
    assert symbols(tasks("7", "x^2 + 1", r"\boxed{\frac{x}{2}}"), SETTINGS) is sandbox(SETTINGS)


def test_one_that_cannot_be_read_is_named_among_many():
    answers = [f"x + {index}" for index in range(TOGETHER + 6)]
    answers[TOGETHER + 3] = "x +"
    with pytest.raises(DataError, match=rf"^file:{TOGETHER + 4}: the answer 'x \+' cannot be read"):
        symbols(tasks(*answers), SETTINGS)


def test_the_first_place_of_an_answer_is_named():
    with pytest.raises(DataError, match=r"^file:2: "):
        symbols(tasks("7", "x +", "y +", "x +"), SETTINGS)


def test_one_that_cannot_be_compared_in_time_is_named(monkeypatch):
    monkeypatch.setattr("fettle.environments.math_answers.PATIENCE", 1e-6)  # in which no machine compares anything
    with pytest.raises(DataError, match=r"^file:2: the answer 'x \+ y' cannot be read"):
        symbols(tasks("7", "x + y", "x + z"), SETTINGS)


def test_without_math_verify_the_first_expression_is_named(monkeypatch):
    monkeypatch.setattr("fettle.environments.math_answers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^file:2: answers like 'x \+ 1' .* pip install 'fettle\[math\]'"):
        symbols(tasks("7", "x + 1"), SETTINGS)
