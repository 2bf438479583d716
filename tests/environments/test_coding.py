"""Episodes of code: what is paid, what is told between attempts, and what is a fault."""

import asyncio
import json
import time

import pytest

from fettle.config import Code, SandboxSettings
from fettle.environments import suite
from fettle.environments.coding import CodeSuite, Coding, Grading, problem_of
from fettle.errors import EnvironmentFault, SandboxError
from fettle.sandbox import sandbox
from fettle.types import Message

ROWS = [
    {
        "prompt": f"Write plus(a) that adds {n}.",
        "function": "plus",
        "tests": [{"arguments": [a], "expected": a + n} for a in (1, 0, -5, 100)],
        "answer": f"def plus(a): return a + {n}",
    }
    for n in range(4)
]


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "plus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def made(**settings) -> CodeSuite:
        patient = {"sandbox": {"seconds": 20.0}, "heldout": 1, "system": None}  # as long as a busy machine needs
        return suite(Code(problems={"type": "file", "path": str(path)}, **{**patient, **settings}))

    return made


async def played(made, *replies: str):
    environment = made.environment()
    task = made.training_task(0)
    await environment.reset(task)
    results = [await environment.step(Message("assistant", reply.replace("N", number_of(task)))) for reply in replies]
    await environment.close()
    return results


def number_of(task) -> str:
    return task.prompt[-1].content.partition("adds ")[2].partition(".")[0]


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


RIGHT = fenced("def plus(a): return a + N")
PARTLY = fenced("def plus(a): return a + N if a < 50 else 0")
HARDCODED = fenced("def plus(a): return {1: 1 + N}[a]")


async def test_a_right_answer_earns_one(problems):
    [result] = await played(problems(), RIGHT)
    assert (result.reward, result.components, result.terminated) == (1.0, {"tests": 1.0}, True)
    assert result.measured == {"code/passed": 1.0, "code/answered": 1.0}


async def test_partial_credit_is_a_choice(problems):
    [whole], [share] = await played(problems(), PARTLY), await played(problems(credit="share"), PARTLY)
    assert whole.reward == 0.0
    assert whole.measured["code/passed"] == pytest.approx(2 / 3)
    assert share.reward == pytest.approx(2 / 3)


async def test_the_shown_test_earns_nothing(problems):
    made = problems(credit="share")
    number = int(number_of(made.training_task(0)))
    assert made.training_task(0).prompt[-1].content.endswith(f"For example:\nplus(1) == {1 + number}")
    [result] = await played(made, HARDCODED)
    assert result.reward == 0.0


@pytest.mark.parametrize(
    "reply", ["", "def plus(a): return a + N", RIGHT + "\n" + RIGHT, fenced("import os; os._exit(0)")]
)
async def test_what_is_no_answer_earns_nothing(problems, reply):
    [result] = await played(problems(credit="share"), reply)
    assert (result.reward, result.terminated) == (0.0, True)


async def test_another_attempt_is_told_what_came_out_and_not_what_should_have(problems):
    first, second = await played(problems(attempts=2), PARTLY, RIGHT)
    assert (first.reward, first.terminated) == (0.0, False)
    assert [message.content for message in first.messages] == ["plus(100) returned 0. Try again."]
    assert (second.reward, second.terminated, second.messages) == (1.0, True, ())


async def test_of_the_shown_test_everything_is_told(problems):
    first, _ = await played(problems(attempts=2), fenced("def plus(a): return 'x'"), RIGHT)
    [told] = first.messages
    assert told.content.startswith("plus(1) returned 'x', and should have returned ")


async def test_the_last_attempt_is_the_one_that_is_paid_for(problems):
    results = await played(problems(attempts=3, credit="share"), "no code", PARTLY, fenced("def plus(a): return None"))
    assert [result.reward for result in results] == [0.0, 0.0, 0.0]
    assert [result.terminated for result in results] == [False, False, True]
    assert "exactly one fenced block" in results[0].messages[0].content


async def test_a_right_answer_ends_it_early(problems):
    [result] = await played(problems(attempts=3), RIGHT)
    assert (result.reward, result.terminated) == (1.0, True)
    made = problems(attempts=1)
    assert (await made.environment().reset(made.training_task(0))).one_reply
    made = problems(attempts=2)
    assert not (await made.environment().reset(made.training_task(0))).one_reply


async def test_a_sandbox_that_fails_is_a_fault(problems):
    place = sandbox(SandboxSettings(seconds=0.75))
    environment = Coding(Code(), place, Grading(0.0))
    await environment.reset(problems().training_task(0))
    await place.close()
    with pytest.raises(SandboxError):
        await environment.step(Message("assistant", fenced("def plus(a): return a")))
    assert issubclass(SandboxError, EnvironmentFault)


async def test_the_loop_goes_on_while_many_answers_are_graded(problems):
    made = problems()
    slow = fenced("import time\ndef plus(a):\n    time.sleep(0.3)\n    return a + N")
    beats: list[float] = []

    async def beating():
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.01)

    heart = asyncio.ensure_future(beating())
    results = await asyncio.gather(*(played(made, slow) for _ in range(6)))
    heart.cancel()
    assert [result.reward for [result] in results] == [1.0] * 6
    assert len(beats) > 10


async def test_the_same_answers_of_a_group_are_run_once_and_those_to_other_problems_apart(problems):
    made = problems()
    one, other = (made.training_task(index) for index in (0, 1))
    code = "import time\ndef plus(a): return a, time.perf_counter_ns()"
    place, grading = sandbox(SandboxSettings(seconds=20.0)), Grading(0.0)
    asked = [problem_of(one), problem_of(one), problem_of(other)]
    first, same, apart = await asyncio.gather(*(grading.verdicts(code, problem, place) for problem in asked))
    assert [verdict.happened for verdict in first] == [verdict.happened for verdict in same]
    assert [verdict.happened for verdict in first] != [verdict.happened for verdict in apart]
    later = await grading.verdicts(code, problem_of(one), place)
    assert [verdict.happened for verdict in first] != [verdict.happened for verdict in later]  # nothing is remembered


async def test_who_stops_waiting_for_a_verdict_stops_alone(problems):
    task, place, grading = problems().training_task(0), sandbox(SandboxSettings(seconds=20.0)), Grading(0.0)
    code = f"def plus(a): return a + {number_of(task)}"
    leaver, stayer = (asyncio.ensure_future(grading.verdicts(code, problem_of(task), place)) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    assert all(verdict.passed for verdict in await stayer)
    assert leaver.cancelled()


async def test_an_episode_is_played_once(problems):
    made = problems()
    environment = made.environment()
    with pytest.raises(EnvironmentFault, match="no episode"):
        await environment.step(Message("assistant", RIGHT))
    await environment.reset(made.training_task(0))
    with pytest.raises(EnvironmentFault, match="one episode"):
        await environment.reset(made.training_task(0))
    await environment.step(Message("assistant", "x"))
    with pytest.raises(EnvironmentFault, match="no episode"):
        await environment.step(Message("assistant", RIGHT))


def test_the_data_of_a_task_is_what_it_is_graded_by(problems):
    task = problems().training_task(0)
    again = type(task)(task.prompt, json.loads(json.dumps(task.data)), task.source)
    assert problem_of(again) == problem_of(task)
    assert task.source == "plus"
