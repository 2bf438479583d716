import json

import pytest

from fettle.environments.math_files import listed
from fettle.errors import DataError


@pytest.fixture
def read(tmp_path):
    def read(*rows):
        path = tmp_path / "problems.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return list(listed(str(path), system=None, source="problems").values())

    return read


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "?", "answer": "She pays 2 * 9 = <<2*9=18>>18.\n#### 18"}, "18"),
        ({"question": "?", "answer": "So many.\n#### 1,234"}, "1,234"),
        ({"problem": "?", "solution": r"First \boxed{1}, no: $\boxed{\frac{1}{2}}$."}, r"\frac{1}{2}"),
        ({"problem": "?", "solution": r"It is \boxed{7}.", "answer": "7.0"}, "7.0"),
        ({"problem": "?", "answer": r"It is $\boxed{x^2 + 1}$."}, "x^2 + 1"),
        ({"question": "?", "answer": 7}, "7"),
        ({"question": "?", "answer": 0.5}, "0.5"),
        ({"question": "?", "answer": "east"}, "east"),
    ],
)
def test_the_answer_is_found(read, row, answer):
    (task,) = read(row)
    assert (task.prompt[-1].content, task.data["answer"]) == ("?", answer)


def test_what_else_a_row_holds_is_kept_and_never_asked(read):
    (task,) = read({"problem": "?", "solution": r"\boxed{7}", "level": "Level 5"})
    assert task.data == {"answer": "7", "level": "Level 5", "solution": r"\boxed{7}"}
    assert [message.content for message in task.prompt] == ["?"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"answer": "7"}, r"problems.jsonl:1: give a question or a problem"),
        ({"questoin": "?", "answer": "7"}, r"rename questoin\?"),
        ({"question": "?", "problem": "?", "answer": "7"}, "question or problem, and not both"),
        ({"question": "?"}, "there is no answer"),
        ({"question": "?", "answer": True}, "there is no answer"),
        ({"question": "?", "answer": ""}, "there is no answer"),
        ({"problem": "?", "solution": "It is 7."}, "there is no answer"),
        ({"question": "?", "answer": "because\n#### "}, "is empty, or too long"),
        ({"question": "?", "answer": "7" * 400}, "is empty, or too long"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(read, row, why):
    with pytest.raises(DataError, match=why):
        read(row)


def test_a_file_that_is_not_there_is_not_made_up(tmp_path):
    path = tmp_path / "gsm8k" / "train.jsonl"
    with pytest.raises(DataError, match=r"there is no file .*train.jsonl: put the problems there.*grade-school-math"):
        listed(str(path), system=None, source="train")
    assert not path.parent.exists()
