import pytest

from fettle.errors import DataError, EnvironmentFault
from fettle.rewards import scored
from fettle.rewards.mathematics import SETTINGS, Verdict, final_answer, math, verdict
from fettle.sandbox import sandbox
from fettle.types import Message, Task

QUESTION = "What is the sum of x^2 and 1?"
PATIENT = SETTINGS.model_copy(update={"seconds": 60.0})
"""For answers that are right, however much else this machine has to do."""


async def told(wanted: str, answer: str, *, question: str = QUESTION, settings=PATIENT) -> Verdict:
    symbols = None if settings is None else sandbox(settings)
    return await verdict(wanted, answer, question=question, symbols=symbols)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>7</answer>", "7"),
        (r"<answer>\boxed{7}</answer>", "7"),
        (r"<answer>the set \boxed{}</answer>", r"the set \boxed{}"),
        (r"so \boxed{7}", "7"),
        (r"so \fboxed{7}", "7"),
        (r"first \boxed{6}, then \boxed{ 7 }", "7"),
        (r"\boxed{\frac{1}{\sqrt{2}}} it is", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{7", None),
        (r"\boxed{7} and \boxed{8", None),
        (r"\boxed{}", None),
        (r"\boxed 7", None),
        ("7", None),
        ("", None),
        (r"<answer>7</answer><answer>8</answer> \boxed{7}", None),
        (r"<answer>7 \boxed{7}", None),
    ],
)
def test_one_answer_is_taken(reply, answer):
    assert final_answer(reply) == answer


async def test_what_is_told_exactly_needs_no_sandbox():
    assert await told("1/2", r"\frac{2}{4}", settings=None) == Verdict(right=True)
    assert await told("1/2", "0.51", settings=None) == Verdict(right=False)


async def test_without_symbols_what_cannot_be_told_is_wrong():
    assert await told("x^2 + 1", "1 + x^2", settings=None) == Verdict(right=False)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ("x^2 + 1", "1 + x^2"),
        ("(x+1)^2", "x^2 + 2x + 1"),
        (r"\frac{x}{2}", "0.5x"),
        (r"\sqrt{2} - 1", r"\frac{1}{1+\sqrt{2}}"),
        ("3 + 2i", "2i + 3"),
        ("y = 2x + 3", "y = 3 + 2x"),
        (r"\log 2", r"\log{2}"),
    ],
)
async def test_expressions_are_compared_in_the_sandbox(wanted, answer):
    assert await told(wanted, answer) == Verdict(right=True)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ("x^2 + 1", "x^2 + 2"),
        ("x^2 + 1", "x^2 + 1 or x^2 + 2"),
        ("x^2 + 1", "x^2 + 1, x^2 + 2"),
        ("x^2 + 1", "x^2 + 2 = x^2 + 1"),
        ("x^2 + 1", "__import__('os').system('true')"),
        (r"\sqrt{2} - 1", "0.41421356"),
        ("3 + 2i", "3 - 2i"),
    ],
)
async def test_other_expressions_and_further_guesses_are_wrong(wanted, answer):
    assert await told(wanted, answer) == Verdict(right=False)


async def test_an_expression_of_the_question_is_no_answer_to_it():
    asked = "Expand $(x+1)^2$."
    assert await told("x^2 + 2x + 1", "(x + 1)^2", question=asked) == Verdict(right=False)
    assert await told("x^2 + 2x + 1", "2x + 1 + x^2", question=asked) == Verdict(right=True)


@pytest.mark.parametrize("hostile", ["9^{9^{9^{9}}} x"])
async def test_a_hostile_answer_is_cut_off_and_counted(hostile):
    assert await told("x^2 + 1", hostile, settings=SETTINGS) == Verdict(right=False, timed_out=True)
    assert await told("x^2 + 1", "1 + x^2") == Verdict(right=True)  # whoever comes next is served


async def test_an_answer_that_no_answer_could_match_is_a_fault_of_the_task():
    with pytest.raises(DataError, match="too long to be compared"):
        await told("x + " * 100, "x")


async def test_as_a_reward_it_takes_a_reply_with_or_without_a_place_for_the_answer():
    task = Task((Message("user", "1/4 + 1/4 ="),), {"answer": "1/2"}, "fractions")
    replies = ("0.5", r"It is \boxed{\frac12}.", "<answer>1/2</answer>", "1/4 + 1/4", "I do not know")
    assert [await math(reply, task) for reply in replies] == [1.0, 1.0, 1.0, 0.0, 0.0]


async def test_a_task_without_an_answer_is_a_fault():
    with pytest.raises(EnvironmentFault, match="reward math raised on task"):
        await scored("math", math, "7", Task((Message("user", "?"),), {}, "fractions"))
