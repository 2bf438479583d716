"""Worked calls: right ones with their result, guesses that are wrong."""

import json

import pytest

from fettle.config import Calculations, Tools
from fettle.data import tools_of, worked_calls
from fettle.environments import suite
from fettle.environments.tools import calculator, tool

SPEC = tool(calculator).spec


@pytest.fixture(scope="module")
def tasks() -> list:
    made = suite(Tools(tasks=Calculations(digits=1), heldout=3))
    return [made.training_task(index) for index in range(200)]


def test_a_call_has_the_result_that_the_tool_gives_and_ends_in_the_answer(tasks):
    for task, talk in zip(tasks, worked_calls(tasks, [SPEC], calls=SPEC.name, guesses=0.0, seed=0), strict=True):
        calling, result, answer = talk[-3:]
        assert calculator(**json.loads(calling.tool_calls[0].arguments)) == result.content == task.data["answer"]
        assert answer.content == f"<answer>{result.content}</answer>"
        assert tools_of(talk) == (SPEC,)


def test_a_guess_calls_nothing_and_is_wrong(tasks):
    for task, talk in zip(tasks, worked_calls(tasks, [SPEC], calls=SPEC.name, guesses=1.0, seed=0), strict=True):
        assert talk[:-1] == task.prompt
        guess = talk[-1].content.removeprefix("<answer>").removesuffix("</answer>")
        assert guess != task.data["answer"]
        assert len(guess) == len(task.data["answer"])


def test_the_share_of_guesses_is_about_what_was_asked(tasks):
    talks = worked_calls(tasks, [SPEC], calls=SPEC.name, guesses=0.3, seed=0)
    assert 0.2 < sum(not any(message.tool_calls for message in talk) for talk in talks) / len(tasks) < 0.4
