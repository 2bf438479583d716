"""Made problems: a solution for each, tests that tell it from other functions, and the same ones for the same seed."""

from random import Random

import pytest

from fettle.config import Code, MadeProblems
from fettle.environments import suite
from fettle.environments.code_made import STEPS, drawn_problem
from fettle.types import Message


def made(**settings) -> MadeProblems:
    return MadeProblems(**settings)


@pytest.mark.parametrize("index", range(50))
def test_the_tests_are_what_the_solution_returns(index):
    asked = drawn_problem(Random(f"made/{index}"), made(max_steps=3))
    names: dict = {}
    exec(asked.problem.answer, names)
    for test in asked.problem.hidden:
        assert eval(test.expression, names) == test.expected


def test_no_constant_and_no_untouched_input_passes():
    for index in range(200):
        tests = drawn_problem(Random(f"made/{index}"), made()).problem.hidden
        assert len({repr(test.expected) for test in tests}) >= 3
        assert any(test.expression != f"f({test.expected!r})" for test in tests)


def test_every_step_is_drawn():
    words = " ".join(drawn_problem(Random(f"steps/{index}"), made()).question for index in range(1500))
    assert [step.words for step in STEPS if step.words.partition("#")[0] not in words] == []


def test_steps_and_numbers_are_as_many_as_are_asked_for():
    for index in range(100):
        asked = drawn_problem(Random(f"{index}"), made(min_steps=2, max_steps=3, largest=4, tests=5))
        assert asked.question.count(", then ") in (1, 2)
        assert len(asked.problem.hidden) == 5
        assert asked.problem.answer.count("\n") == asked.question.count(", then ") + 1


async def test_in_the_sandbox_the_solution_is_right_and_its_neighbours_are_not():
    patient = {"seconds": 20.0}  # as long as a busy machine needs
    code = suite(Code(problems={"type": "made", "max_steps": 2}, heldout=5, sandbox=patient))
    tasks = [code.training_task(index) for index in range(12)]
    for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        for answer, paid in ((task.data["answer"], 1.0), (other.data["answer"], 0.0)):
            environment = code.environment()
            await environment.reset(task)
            result = await environment.step(Message("assistant", f"```python\n{answer}\n```"))
            assert result.reward == paid
