"""Every environment may be paid by parts: they sum, they are told one by one, and one that fails is a fault."""

import json

import pytest
from pydantic import ValidationError

from fettle.config import JSONL, Arithmetic, Code
from fettle.environments import StepResult, suite
from fettle.environments.rewarded import RewardedEnvironment
from fettle.environments.scoring import ScoringThread
from fettle.errors import ConfigError, EnvironmentFault
from fettle.rewards import parts
from fettle.types import Message, Task
from tests.rewards.endpoints import endpoint, said


def shortness(reply, task):
    return 10.0 - len(reply)


def sides(reply, task):
    return {"left": 1.0, "right": 2.0}


async def waited(reply, task):
    return 0.5


def broken(reply, task):
    raise KeyError("anser")


def endless(reply, task):
    return float("nan")


HERE = "tests.environments.test_rewarded"


async def result(made, reply: str) -> StepResult:
    environment = made.environment()
    await environment.reset(made.training_task(0))
    return await environment.step(Message("assistant", reply))


def own_of(made) -> str:
    return f"<answer>{made.training_task(0).data['answer']}</answer>"


async def test_a_judge_may_be_a_part():
    with endpoint(lambda _: said("Well put. <score>4</score>")) as served:
        judge = {"judge": {"url": served.url, "model": "arbiter"}, "rubric": "Is it polite?"}
        part = {"reward": "judge", "judge": judge, "name": "politeness", "scale": 0.5}
        made = suite(Arithmetic(heldout=5, rewards=({"reward": "environment"}, part)))
        found = await result(made, own_of(made))
        [asked] = served.asked
    assert found.components == {"environment": 1.0, "politeness": pytest.approx(0.5 * 0.75)}
    assert "Is it polite?" in asked["messages"][0]["content"]


def test_a_part_of_a_judge_says_whom_it_asks():
    with pytest.raises(ValidationError, match="nothing says who is asked: set judge"):
        Arithmetic(rewards=({"reward": "judge"},))


async def test_the_parts_sum_and_are_told_one_by_one():
    made = suite(
        Arithmetic(
            heldout=5,
            rewards=(
                {"reward": "environment", "scale": 2.0},
                {"reward": f"{HERE}:shortness", "name": "short", "scale": 0.1, "clip": 0.2, "bias": -0.05},
                {"reward": f"{HERE}:waited", "name": "later"},
                {"reward": f"{HERE}:sides"},
            ),
        )
    )
    right = await result(made, own_of(made))
    assert right.components == pytest.approx(
        {"environment": 2.0, "short": -0.25, "later": 0.5, f"{HERE}:sides": 3.0}, abs=1e-12
    )
    assert right.reward == sum(right.components.values())
    assert right.measured == {"environment/number": 1.0}
    wrong = await result(made, "no")
    assert wrong.components["environment"] == 0.0
    assert wrong.components["short"] == pytest.approx(0.15)


async def test_what_the_environment_pays_counts_only_where_it_is_named():
    made = suite(Arithmetic(heldout=5, rewards=({"reward": f"{HERE}:waited"},)))
    assert (await result(made, own_of(made))).reward == 0.5


async def test_rows_of_a_file_and_code_take_parts_alike(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n} =", "answer": str(n)}) + "\n" for n in range(9)))
    added = ({"reward": "environment"}, {"reward": f"{HERE}:waited", "name": "more"})
    rows = suite(JSONL(path=str(path), heldout=2, rewards=added))
    assert (await result(rows, own_of(rows))).components == {"environment": 1.0, "more": 0.5}
    code = suite(Code(heldout=2, rewards=added, sandbox={"seconds": 20.0}))
    answer = f"```python\n{code.training_task(0).data['answer']}\n```"
    assert (await result(code, answer)).components == {"environment": 1.0, "more": 0.5}


@pytest.mark.parametrize("function", ["broken", "endless"])
async def test_a_part_that_fails_is_a_fault_and_no_zero(function):
    made = suite(Arithmetic(heldout=5, rewards=({"reward": "environment"}, {"reward": f"{HERE}:{function}"})))
    with pytest.raises(EnvironmentFault, match=f"reward {HERE}:{function} "):
        await result(made, own_of(made))


class Counting:
    """Pays 1 for each of three steps."""

    def __init__(self):
        self.left = 3

    async def reset(self, task):
        raise NotImplementedError

    async def step(self, action):
        self.left -= 1
        return StepResult((), 1.0, terminated=self.left == 0, truncated=False, components={"step": 1.0})

    async def close(self):
        pass


async def test_over_several_steps_the_environment_is_paid_each_time_and_the_rest_at_the_end():
    settings = suite_parts({"reward": "environment", "scale": 2.0, "bias": 1.0}, {"reward": f"{HERE}:waited"})
    environment = RewardedEnvironment(Counting(), settings, ScoringThread())
    environment._task = Task((Message("user", "count"),), {}, "counting")
    rewards = [(await environment.step(Message("assistant", "x"))).reward for _ in range(3)]
    assert rewards == [2.0, 2.0, 3.5]


def suite_parts(*given):
    return parts(Arithmetic(heldout=5, rewards=given).rewards)


def test_two_parts_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="number more than once"):
        Arithmetic(rewards=({"reward": "number"}, {"reward": "exact_match", "name": "number"}))


def test_a_reward_that_is_not_there_is_told_before_the_run():
    with pytest.raises(ConfigError, match="no reward is named 'nubmer'"):
        suite(Arithmetic(heldout=5, rewards=({"reward": "nubmer"},)))
