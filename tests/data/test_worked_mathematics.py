import pytest

from fettle.config import MadeMathematics, Mathematics, WorkedMathematics
from fettle.data import worked_mathematics
from fettle.environments import suite
from fettle.errors import DataError
from fettle.rewards import tagged_answer
from fettle.types import Message, Task

TASKS = [suite(Mathematics(heldout=10)).training_task(index) for index in range(200)]


@pytest.mark.parametrize(("slips", "right"), [(0.0, 200), (1.0, 0)])
def test_the_share_of_mistakes_is_as_asked(slips, right):
    answers = [tagged_answer(talk[-1].content) for talk in worked_mathematics(TASKS, slips=slips, seed=0)]
    found = sum(answer == task.data["answer"] for answer, task in zip(answers, TASKS, strict=True))
    assert abs(found - right) < 10


def test_it_begins_with_what_was_asked_and_is_the_same_again():
    talks = list(worked_mathematics(TASKS, slips=0.5, seed=3))
    assert all(talk[:-1] == task.prompt for talk, task in zip(talks, TASKS, strict=True))
    assert talks == list(worked_mathematics(TASKS, slips=0.5, seed=3))
    assert talks != list(worked_mathematics(TASKS, slips=0.5, seed=4))


def test_a_task_without_work_is_refused():
    with pytest.raises(DataError, match="holds no worked solution"):
        list(worked_mathematics([Task((Message("user", "?"),), {"answer": "7"}, "own")], slips=0, seed=0))


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ({"problems": {"type": "file", "path": "x.jsonl"}}, "use made ones"),
        ({"weight": 2}, "tasks.weight is about playing"),
        ({"attempts": 2}, "tasks.attempts is about playing"),
    ],
)
def test_what_is_about_playing_is_refused(tasks, why):
    with pytest.raises(ValueError, match=why):
        WorkedMathematics(tasks=Mathematics.model_validate(tasks))


def test_made_problems_are_fine():
    assert WorkedMathematics(tasks=Mathematics(problems=MadeMathematics(difficulty=5))).size == 20000
