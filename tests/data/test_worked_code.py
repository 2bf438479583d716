"""Worked code: the right program, or that of another problem of the same kind, as often as is asked."""

import pytest

from fettle.config import Code
from fettle.data import programs
from fettle.environments import suite
from fettle.errors import DataError
from fettle.types import Message, Task


@pytest.fixture(scope="module")
def tasks():
    made = suite(Code(heldout=5))
    return [made.training_task(index) for index in range(400)]


def test_without_slips_every_program_is_the_right_one(tasks):
    for task, conversation in zip(tasks, programs(tasks, slips=0.0, seed=0), strict=True):
        assert conversation[:-1] == task.prompt
        assert conversation[-1] == Message("assistant", f"```python\n{task.data['answer']}\n```")


def test_slips_are_answers_to_questions_of_the_same_kind(tasks):
    shown = [said[-1].content for said in programs(tasks, slips=0.5, seed=0)]
    wrong = [index for index, task in enumerate(tasks) if task.data["answer"] not in shown[index]]
    assert 150 < len(wrong) < 230
    known = {(kind_of(task), f"```python\n{task.data['answer']}\n```") for task in tasks}
    assert all((kind_of(tasks[index]), shown[index]) in known for index in wrong)


def kind_of(task: Task) -> str:
    return task.prompt[-1].content.partition(":")[0]


def test_a_task_without_an_answer_is_refused():
    with pytest.raises(DataError, match="has no right answer to be shown"):
        list(programs([Task((Message("user", "x"),), {"answer": None}, "code")], slips=0.0, seed=0))
