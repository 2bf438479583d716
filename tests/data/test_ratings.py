import pytest

from fettle.data import Rating, ratings
from fettle.errors import DataError
from fettle.types import Message

GOOD = {"prompt": "How do I look?", "completion": "Well.", "label": True}


def test_replies_keep_their_order_and_their_labels(written):
    asked = (Message("user", "How do I look?"),)
    messages = {
        "prompt": [{"role": "user", "content": "How do I look?"}],
        "completion": [{"role": "assistant", "content": "Old."}],
        "label": False,
    }
    assert ratings(written(GOOD, messages)) == [Rating(asked, "Well.", True), Rating(asked, "Old.", False)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"label": 1}, "label is 1: it must be true for a good reply or false for a bad one"),
        ({"label": "true"}, "label is 'true'"),
        ({"label": None}, "label is None"),
        ({"completion": ""}, "completion is empty"),
        ({"completion": None}, "completion is missing"),
        ({"prompt": None}, "prompt is missing"),
        ({"lable": True}, "nothing here reads lable; did you mean label?"),
    ],
)
def test_a_malformed_row_is_named(written, change, why):
    path = written(GOOD, {**GOOD, **change})
    with pytest.raises(DataError, match=why) as caught:
        ratings(path)
    assert caught.value.message.startswith(f"{path}:2: ")


def test_an_empty_file_is_an_error(written):
    with pytest.raises(DataError, match=r"rows\.jsonl is empty"):
        ratings(written())
