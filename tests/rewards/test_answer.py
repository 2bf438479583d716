import pytest

from fettle.rewards import in_tags, is_awaited, tagged_answer
from fettle.types import Message, Task

TASK = Task((Message("user", "3 + 4 ="),), {"answer": "7"}, "sums")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>7</answer>", "7"),
        ("3 and 4 make\n<answer>\n 7 \n</answer> I think", "7"),
        ("<answer>1\n2</answer>", "1\n2"),
        ("<answer></answer>", ""),
    ],
)
def test_the_one_tagged_answer_is_taken(reply, answer):
    assert tagged_answer(reply) == answer


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "7",
        "<answer>7",
        "7</answer>",
        "</answer>7<answer>",
        "<answer>6</answer><answer>7</answer>",
        "<answer><answer>7</answer>",
        "<answer>7</answer></answer>",
        "<answer><answer>7</answer></answer>",
        "<ANSWER>7</ANSWER>",
        "<answer >7</answer >",
    ],
)
def test_anything_but_one_pair_is_no_answer(reply):
    assert tagged_answer(reply) is None


def test_the_reward_sees_only_what_is_tagged():
    assert in_tags(lambda answer, task: float(answer == "7"))("so it is <answer>7</answer>", TASK) == 1.0


def test_without_an_answer_the_reward_is_not_asked():
    def unreachable(answer: str, task: Task) -> float:
        raise AssertionError

    assert in_tags(unreachable)("7", TASK) == 0.0


async def test_a_reward_that_is_waited_for_is_wrapped_into_one_that_is():
    async def right(answer: str, task: Task) -> float:
        return float(answer == "7")

    tagged = in_tags(right)
    assert is_awaited(tagged)
    assert [await tagged(reply, TASK) for reply in ("<answer>7</answer>", "7")] == [1.0, 0.0]
