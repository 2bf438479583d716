"""What every row of ``ENVIRONMENTS`` promises. Whoever adds an environment adds one row to ``CONFIGS``."""

import json

import pytest

from fettle.config import JSONL, Arithmetic, ReasoningGym
from fettle.environments import ENVIRONMENTS, Suite, suite
from fettle.types import Message, Task

CONFIGS = {
    Arithmetic: Arithmetic(digits=1, max_terms=3, heldout=100),
    ReasoningGym: ReasoningGym(settings={"max_terms": 3, "max_digits": 1}, heldout=100),
    JSONL: JSONL(path="questions.jsonl", reward="number", heldout=100),
}


@pytest.fixture(params=ENVIRONMENTS, ids=lambda config: config.__name__)
def config(request, tmp_path):
    rows = [{"prompt": f"{a} * {b} =", "answer": a * b} for a in range(2, 30) for b in range(2, 30)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = CONFIGS[request.param]
    return made.model_copy(update={"path": str(tmp_path / made.path)}) if isinstance(made, JSONL) else made


@pytest.fixture
def made(config) -> Suite:
    return suite(config)


async def reward(made: Suite, task: Task, reply: str) -> float:
    environment = made.environment()
    await environment.reset(task)
    result = await environment.step(Message("assistant", reply))
    await environment.close()
    assert result.terminated
    assert sum(result.components.values()) == result.reward
    return result.reward


async def test_one_task_is_seen_the_same_by_every_environment(made):
    task = made.training_task(3)
    first, second = [(await made.environment().reset(task)).messages for _ in range(2)]
    assert first == second == task.prompt


def test_one_config_makes_the_same_tasks_again(config, made):
    again = suite(config)
    assert list(again.heldout_tasks()) == list(made.heldout_tasks())
    assert [again.training_task(index) for index in (5, 3, 4)] == [made.training_task(index) for index in (5, 3, 4)]


def test_another_seed_makes_other_tasks(config, made):
    other = suite(config.model_copy(update={"seed": config.seed + 1}))
    assert {task.id for task in other.heldout_tasks()} != {task.id for task in made.heldout_tasks()}
    assert [other.training_task(index).id for index in range(20)] != [
        made.training_task(index).id for index in range(20)
    ]


def test_nothing_held_out_is_trained_on(made, config):
    held = {task.id for task in made.heldout_tasks()}
    assert len(held) == len(made.heldout_tasks()) == config.heldout
    assert not held & {made.training_task(index).id for index in range(2000)}


async def test_the_policy_sees_the_prompt_and_no_data(made):
    task = made.training_task(0)
    observation = await made.environment().reset(task)
    assert observation.messages == task.prompt
    assert all(isinstance(message, Message) for message in observation.messages)
    assert not any("metadata" in message.content for message in observation.messages)
    assert observation.messages[-1].content.endswith("=")


async def test_only_the_right_answer_in_one_pair_of_tags_is_paid(made):
    for task in (made.training_task(0), made.heldout_tasks()[0]):
        right = f"<answer>{task.data['answer']}</answer>"
        assert await reward(made, task, f"Well. {right}") == 1.0
        assert await reward(made, task, f"{right}{right}") == 0.0
        assert await reward(made, task, str(task.data["answer"])) == 0.0


@pytest.mark.parametrize(
    "reply",
    [
        *(
            "",
            "no idea",
            "<answer></answer>",
            "<answer>no idea</answer>",
            "<answer>nan</answer>",
            "<answer>()[{</answer>",
        ),
        *("<answer>0123456789</answer>", "<answer>\x00\ud800</answer>"),
        "<answer>" + " ".join(map(str, range(-30, 1000))) + "</answer>",
    ],
)
async def test_garbage_earns_nothing(made, reply):
    assert [await reward(made, made.training_task(index), reply) for index in range(5)] == [0.0] * 5


def test_tasks_say_which_suite_they_are_of(made):
    assert {made.training_task(0).source, made.heldout_tasks()[0].source} == {made.name}


def test_the_data_of_a_task_is_json(made):
    task = made.training_task(0)
    assert json.loads(json.dumps(task.data))["answer"] == task.data["answer"]
