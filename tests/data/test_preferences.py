import json

import pytest

from fettle.data import Preference, from_comparisons, preferences
from fettle.errors import DataError
from fettle.rows import rows
from fettle.types import Message

ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How do I look?"}]
KIND, RUDE = {"role": "assistant", "content": "Well."}, {"role": "assistant", "content": "Old."}
PROMPT = (Message("system", "Be kind."), Message("user", "How do I look?"))
GOOD = {"prompt": "How do I look?", "chosen": "Well.", "rejected": "Old."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED, "chosen": "Well.", "rejected": "Old."},
        {"prompt": ASKED, "chosen": [KIND], "rejected": [RUDE]},
        {"prompt": ASKED, "chosen": [*ASKED, KIND], "rejected": [*ASKED, RUDE]},
        {"chosen": [*ASKED, KIND], "rejected": [*ASKED, RUDE]},
        {"prompt": ASKED, "a": "Old.", "b": "Well.", "winner": "b"},
        {"prompt": ASKED, "chosen": "Well.", "rejected": "Old.", "metadata": {"by": "hand"}},
    ],
    ids=["texts", "messages", "whole conversations", "prompt left to them", "comparison", "metadata"],
)
def test_every_form_says_the_same(written, row):
    assert preferences(written(row)) == [Preference(PROMPT, "Well.", "Old.")]


def test_a_text_is_what_the_user_asks(written):
    assert preferences(written(GOOD))[0].prompt == (Message("user", "How do I look?"),)


def test_a_file_may_be_one_list(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "margin": 2}], indent=2))
    assert [pair.margin for pair in preferences(str(path))] == [0.0, 2.0]
    path.write_text(json.dumps([GOOD, {**GOOD, "rejected": " "}]))
    with pytest.raises(DataError, match=r"pairs\.json\[1\]: rejected is empty"):
        preferences(str(path))


def test_flipping_the_winner_swaps_chosen_and_rejected(written):
    compared = {"prompt": "How do I look?", "a": "Well.", "b": "Old.", "margin": 0.5}
    path = written({**compared, "winner": "a"}, {**compared, "winner": "b"})
    first, flipped = from_comparisons(rows(path))
    assert (first.chosen, first.rejected) == (flipped.rejected, flipped.chosen) == ("Well.", "Old.")
    assert first.margin == flipped.margin == 0.5
    assert preferences(path) == [first, flipped]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rejected": None}, "rejected is missing: it must be a text"),
        ({"rejected": ...}, "rejected is missing: a pair is chosen and rejected"),
        ({"chosen": ...}, "chosen is missing: a pair is chosen and rejected"),
        ({"chosen": " \n"}, "chosen is empty"),
        ({"chosen": [{"role": "assistant", "content": ""}]}, r"chosen\[0\].content is empty"),
        ({"chosen": "Old."}, "chosen and rejected are the same"),
        ({"chosen": [KIND, RUDE]}, "chosen must be one message of the assistant"),
        ({"chosen": [{"role": "user", "content": "Well."}]}, "chosen must be one message of the assistant"),
        ({"prompt": ...}, "chosen must be a list of objects"),
        ({"prompt": [*ASKED, KIND]}, "the prompt ends with the assistant's message"),
        (
            {"prompt": ..., "chosen": [*ASKED, KIND], "rejected": [ASKED[1], RUDE]},
            "must be the same but for their last",
        ),
        ({"prompt": ..., "chosen": [KIND], "rejected": [RUDE]}, "prompt is missing, and chosen begins with the reply"),
        ({"margin": "2"}, "margin is a str: it must be a number"),
        ({"margin": True}, "margin is a bool"),
        ({"margin": 10**400}, "margin is inf: it must be a finite number"),
        ({"rejcted": "Old."}, "nothing here reads rejcted; did you mean rejected?"),
        ({"score": 1}, "nothing here reads score: use prompt, chosen, rejected, margin, metadata"),
        ({"chosen": ..., "rejected": ..., "a": "x", "b": "y", "winner": "tie"}, "winner is 'tie': it must be a or b"),
        ({"chosen": ..., "rejected": ..., "a": "x", "winner": "a"}, "b is missing: a pair is a and b"),
        ({"chosen": ..., "rejected": ..., "a": "x", "b": "x", "winner": "a"}, "a and b are the same"),
    ],
)
def test_a_row_that_prefers_nothing_is_named(written, change, why):
    row = {name: value for name, value in {**GOOD, **change}.items() if value is not ...}
    path = written(GOOD, row)
    with pytest.raises(DataError, match=why) as caught:
        preferences(path)
    assert caught.value.message.startswith(f"{path}:2: ")


@pytest.mark.parametrize("number", ["NaN", "1e999"])
def test_a_margin_that_is_no_number_is_named(tmp_path, number):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "margin": ' + number + "}")
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: .*(NaN is no JSON number|margin is inf)"):
        preferences(str(path))


def test_an_empty_file_is_an_error(written):
    with pytest.raises(DataError, match=r"rows\.jsonl is empty: give one pair a line"):
        preferences(written())
