import json

import pytest

from fettle.config import MadeMathematics, Mathematics, MathematicsFile, SandboxSettings
from fettle.environments import suite
from fettle.errors import ConfigError, DataError, EnvironmentFault
from fettle.types import Message

LINEAR = Mathematics(problems=MadeMathematics(kinds=("linear_equations",), difficulty=2), heldout=20)


async def played(made, task, *replies: str):
    """Every step of an episode."""
    environment = made.environment()
    observation = await environment.reset(task)
    steps = [await environment.step(Message("assistant", reply)) for reply in replies]
    await environment.close()
    assert all(sum(step.components.values()) == step.reward for step in steps)
    return observation, steps


def tagged(answer: str) -> str:
    return f"<answer>{answer}</answer>"


@pytest.fixture
def written(tmp_path):
    def written(*rows, **settings):
        path = tmp_path / "own.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return suite(Mathematics(problems=MathematicsFile(path=str(path), **settings), heldout=1))

    return written


@pytest.mark.parametrize("difficulty", range(1, 6))
async def test_the_right_answer_is_paid_and_the_mistake_is_not(difficulty):
    made = suite(Mathematics(problems=MadeMathematics(difficulty=difficulty), heldout=10))
    for task in (*made.heldout_tasks(), *map(made.training_task, range(20))):
        _, (step,) = await played(made, task, f"{task.data['work']}\n{tagged(task.data['answer'])}")
        assert (step.reward, step.terminated, dict(step.components)) == (1.0, True, {"math": 1.0})
        _, (step,) = await played(made, task, tagged("none"))
        assert (step.reward, step.measured["math/answered"]) == (0.0, 1.0)


async def test_an_answer_may_be_boxed_and_must_be_one():
    made = suite(LINEAR)
    task = made.training_task(0)
    answer = task.data["answer"]
    for reply, paid, answered in (
        (rf"So x is \boxed{{{answer}}}.", 1.0, 1.0),
        (f"{tagged(answer)}{tagged(answer)}", 0.0, 0.0),
        (f"it is {answer}", 0.0, 0.0),
        (tagged(f"{answer} or 1000"), 0.0, 1.0),
        ("", 0.0, 0.0),
    ):
        _, (step,) = await played(made, task, reply)
        assert (step.reward, step.measured["math/answered"]) == (paid, answered)


async def test_what_is_said_of_a_wrong_answer_never_holds_the_right_one():
    made = suite(LINEAR.model_copy(update={"attempts": 4}))
    for index in range(30):
        task = made.training_task(index)
        observation, steps = await played(made, task, "no idea", tagged("77777"), tagged(f"x = {task.data['answer']}"))
        assert not observation.one_reply
        told = [message.content for step in steps for message in step.messages]
        assert len(told) == 2
        assert "no answer" in told[0]
        assert "not right" in told[1]
        assert not any(task.data["answer"] in text or task.data["work"] in text for text in told)
        assert [step.terminated for step in steps] == [False, False, True]


async def test_a_later_answer_is_worth_less_and_the_last_wrong_one_ends_it():
    made = suite(LINEAR.model_copy(update={"attempts": 2}))
    task = made.training_task(0)
    right, wrong = tagged(task.data["answer"]), tagged("77777")
    assert (await played(made, task, right))[1][-1].reward == 1.0
    second = (await played(made, task, wrong, right))[1]
    assert [step.reward for step in second] == [0.0, 0.5]
    assert second[-1].measured["math/attempts"] == 2
    last = (await played(made, task, wrong, wrong))[1][-1]
    assert (last.reward, last.terminated, last.messages) == (0.0, True, ())


async def test_an_environment_plays_one_episode():
    made = suite(LINEAR)
    environment = made.environment()
    with pytest.raises(EnvironmentFault, match="no episode to step"):
        await environment.step(Message("assistant", "7"))
    await environment.reset(made.training_task(0))
    with pytest.raises(EnvironmentFault, match="one episode"):
        await environment.reset(made.training_task(1))
    await environment.step(Message("assistant", tagged("7")))
    with pytest.raises(EnvironmentFault, match="no episode to step"):
        await environment.step(Message("assistant", tagged("7")))


def test_one_seed_makes_the_same_problems_and_none_that_is_held_out_is_trained_on():
    made, again, other = suite(LINEAR), suite(LINEAR), suite(LINEAR.model_copy(update={"seed": 1}))
    training = [made.training_task(index) for index in range(500)]
    assert training == [again.training_task(index) for index in range(500)]
    assert made.heldout_tasks() == again.heldout_tasks() != other.heldout_tasks()
    assert not {task.prompt for task in training} & {task.prompt for task in made.heldout_tasks()}


def test_only_the_kinds_asked_for_are_made():
    made = suite(Mathematics(problems=MadeMathematics(kinds=("systems", "inequalities")), heldout=20))
    assert {task.data["kind"] for task in made.heldout_tasks()} == {"systems", "inequalities"}


async def test_a_file_of_numbers_needs_no_sandbox(written):
    made = written({"question": "6 * 3?", "answer": "#### 18"}, {"question": "6 * 4?", "answer": "#### 24"})
    task = made.training_task(0)
    for answer, paid in ((f"${task.data['answer']}.00", 1.0), ("__import__('os')", 0.0), ("9^9^9^9", 0.0)):
        _, (step,) = await played(made, task, tagged(answer))
        assert (step.reward, step.measured["math/grader_timeouts"]) == (paid, 0.0)


async def test_expressions_of_a_file_are_compared_in_the_sandbox_and_a_hostile_one_is_counted(written):
    rows = [{"problem": f"Expand $(x+{n})^2$.", "solution": rf"\boxed{{x^2+{2 * n}x+{n * n}}}"} for n in (1, 2)]
    made = written(*rows, sandbox=SandboxSettings(seconds=60, memory_mib=1024))
    task = made.training_task(0)
    n = int(task.prompt[-1].content[11])
    _, (step,) = await played(made, task, rf"\boxed{{{n * n} + {2 * n}x + x^2}}")
    assert step.reward == 1.0
    _, (step,) = await played(made, task, rf"\boxed{{(x+{n})^2}}")
    assert step.reward == 0.0
    _, (step,) = await played(written(*rows), task, r"\boxed{9^{9^{9^{9}}} x}")
    assert (step.reward, step.measured["math/grader_timeouts"]) == (0.0, 1.0)


async def test_the_exact_checker_takes_another_writing_for_wrong(written):
    rows = [{"problem": f"Expand $(x+{n})^2$.", "solution": rf"\boxed{{x^2+{2 * n}x+{n * n}}}"} for n in (1, 2)]
    made = written(*rows, checker="exact")
    task = made.training_task(0)
    same = task.data["answer"]
    other = "+".join(reversed(same.split("+")))
    assert [(await played(made, task, tagged(answer)))[1][0].reward for answer in (same, other)] == [1.0, 0.0]


def test_a_file_that_is_too_small_to_hold_out_says_so(written):
    with pytest.raises(DataError, match=r"heldout is 1, but .* asks only 1 different things"):
        written({"question": "6 * 3?", "answer": "18"})


def test_too_few_problems_to_hold_out_is_an_error():
    few = Mathematics(problems=MadeMathematics(kinds=("linear_equations",)), heldout=5000)
    with pytest.raises(ConfigError, match="math: heldout is 5000, but its settings make only"):
        suite(few)
