import json

import pytest

from fettle.config import JSONL
from fettle.environments import suite
from fettle.errors import ConfigError, DataError
from fettle.types import Message


def written(tmp_path, rows) -> str:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(size: int) -> list[dict[str, object]]:
    return [{"prompt": f"{index} + 1 =", "answer": index + 1} for index in range(size)]


async def paid(made, task, reply: str) -> float:
    environment = made.environment()
    await environment.reset(task)
    return (await environment.step(Message("assistant", reply))).reward


def test_every_training_row_comes_once_an_epoch_in_a_new_order(tmp_path):
    made = suite(JSONL(path=written(tmp_path, questions(30)), heldout=10))
    epochs = [[made.training_task(epoch * 20 + place).id for place in range(20)] for epoch in range(3)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]


def test_repeated_questions_are_never_on_both_sides(tmp_path):
    rows = [*questions(30), *questions(30), *({"prompt": f"{index} + 1 =", "answer": "other"} for index in range(30))]
    made = suite(JSONL(path=written(tmp_path, rows), heldout=10))
    held = {task.prompt for task in made.heldout_tasks()}
    assert len(held) == len(made.heldout_tasks()) == 10
    assert not held & {made.training_task(index).prompt for index in range(60)}


def test_what_is_held_out_does_not_depend_on_the_order_of_the_file(tmp_path):
    rows = questions(30)
    before = {task.id for task in suite(JSONL(path=written(tmp_path, rows), heldout=10)).heldout_tasks()}
    after = {task.id for task in suite(JSONL(path=written(tmp_path, rows[::-1]), heldout=10)).heldout_tasks()}
    assert before == after


def test_another_seed_holds_out_other_rows(tmp_path):
    path = written(tmp_path, questions(30))
    one, other = (suite(JSONL(path=path, heldout=10, seed=seed)).heldout_tasks() for seed in (0, 1))
    assert {task.id for task in one} != {task.id for task in other}


def test_messages_keep_their_own_system_message_and_get_ours_where_they_have_none(tmp_path):
    own = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 2 ="}]
    rows = [
        {"messages": own, "answer": "4"},
        {"messages": own[1:], "answer": "4"},
        {"prompt": "1 + 1 =", "answer": "2"},
    ]
    made = suite(JSONL(path=written(tmp_path, rows), heldout=1, system="ours"))
    firsts = {task.prompt[0].content for task in (*made.heldout_tasks(), made.training_task(0), made.training_task(1))}
    assert firsts == {"be brief", "ours"}


def test_further_fields_reach_the_reward_and_not_the_prompt(tmp_path, monkeypatch):
    (tmp_path / "budget_reward.py").write_text(
        "def within(reply, task):\n    return {'length': len(reply), 'room': task.data['room'] - len(reply)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"prompt": f"{index}?", "answer": "7", "room": 5} for index in range(3)]
    task = suite(JSONL(path=written(tmp_path, rows), heldout=1, reward="budget_reward:within")).training_task(0)
    assert task.data == {"answer": "7", "room": 5}
    assert "room" not in repr(task.prompt)


async def test_the_answer_stands_in_tags_or_is_the_whole_reply(tmp_path):
    path = written(tmp_path, questions(3))
    tagged, plain = suite(JSONL(path=path, heldout=1)), suite(JSONL(path=path, heldout=1, answer_in="text"))
    task = tagged.training_task(0)
    answer = str(task.data["answer"])
    assert [await paid(tagged, task, reply) for reply in (f"<answer>{answer}</answer>", answer)] == [1.0, 0.0]
    assert [await paid(plain, task, reply) for reply in (f"<answer>{answer}</answer>", answer)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "2 + 2 ="}, "the answer is missing"),
        ({"prompt": "2 + 2 =", "answer": None}, "the answer is missing"),
        ({"prompt": "2 + 2 =", "answer": " "}, "the answer is missing"),
        ({"prompt": "", "answer": "4"}, "prompt is empty"),
        ({"answer": "4"}, "give either prompt or messages, for it has neither"),
        ({"question": "2 + 2", "answer": "4"}, r"for it has neither \(rename question to prompt\?\)"),
        ({"prompt": "2 + 2", "solution": "4"}, r"the answer is missing: .* \(rename solution to answer\?\)"),
        ({"prompt": "x", "messages": [], "answer": "4"}, "give either prompt or messages"),
        ({"messages": [{"role": "assistant", "content": "4"}], "answer": "4"}, "the last message is the assistant's"),
        ({"prompt": "2 + 2 =", "answer": ["4"]}, "must be a text or a number"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, why):
    path = written(tmp_path, [*questions(2), row])
    with pytest.raises(DataError, match=why) as caught:
        suite(JSONL(path=path, heldout=1))
    assert caught.value.message.startswith(f"{path}:3: ")


def test_an_answer_that_its_own_reward_cannot_read_is_named_before_the_run(tmp_path):
    path = written(tmp_path, [*questions(2), {"prompt": "2 + 2 =", "answer": "#### 4"}])
    with pytest.raises(DataError, match=r"questions.jsonl:3: the answer '#### 4' is not a number"):
        suite(JSONL(path=path, heldout=1, reward="number"))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (r"\frac{1}{", r"the answer '\\\\frac\{1\}\{' cannot be read, neither exactly nor by math-verify"),
        ("x^", "the answer 'x\\^' cannot be read"),
        ("9" * 400, "is empty, or too long to be compared"),
        ("$$", "is empty, or too long to be compared"),
        (True, "must be a text or a number"),
    ],
)
def test_an_answer_that_the_comparison_of_mathematics_cannot_read_is_named_before_the_run(tmp_path, answer, why):
    rows = [*questions(2), {"prompt": "Expand.", "answer": "x^2 + 1"}, {"prompt": "2 + 2 =", "answer": answer}]
    path = written(tmp_path, rows)
    with pytest.raises(DataError, match=why) as caught:
        suite(JSONL(path=path, heldout=1, reward="math"))
    assert caught.value.message.startswith(f"{path}:4: ")


async def test_answers_of_mathematics_are_compared_by_what_they_say(tmp_path):
    rows = [{"prompt": f"{index}/2 =", "answer": f"{index}/2"} for index in range(1, 4)]
    made = suite(JSONL(path=written(tmp_path, rows), heldout=1, reward="math"))
    task = made.training_task(0)
    half = float(task.data["answer"][0]) / 2
    assert [await paid(made, task, f"<answer>{number}</answer>") for number in (half, half + 1)] == [1.0, 0.0]


@pytest.mark.parametrize("size", [0, 1, 10])
def test_too_few_rows_to_hold_out_and_to_train_are_an_error(tmp_path, size):
    with pytest.raises(DataError, match=f"heldout is 10, but .*questions.jsonl asks only {size} different things"):
        suite(JSONL(path=written(tmp_path, questions(size)), heldout=10))


def test_an_unknown_reward_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"no reward is named 'numbr'.*did you mean number"):
        suite(JSONL(path=written(tmp_path, questions(3)), heldout=1, reward="numbr"))
