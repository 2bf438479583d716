from collections import Counter

import pytest

from fettle.data import Conversation, Episode, Preference, Rating, split, split_by_prompt
from fettle.errors import DataError
from fettle.types import Message


def talk(question: str, reply: str = "A number.") -> Conversation:
    return Message("user", question), Message("assistant", reply)


def talks(size: int) -> list[Conversation]:
    return [talk(f"What is {index:04}?") for index in range(size)]


def test_every_conversation_is_on_exactly_one_side():
    training, held = split(talks(100), heldout=20, seed=0)
    assert len(held) == 20
    assert sorted(training + held, key=repr) == talks(100)


def test_what_asks_the_same_is_on_one_side_and_held_out_once():
    again = [talk(f" what  is {index:04}? ", f"It is {index}.") for index in range(50)]
    training, held = split([*talks(50), *again, *talks(50)], heldout=20, seed=0)
    asked = Counter(question.content.casefold().split()[2] for question, _ in training)
    assert (len(held), len(asked), set(asked.values())) == (20, 30, {3})
    assert not asked.keys() & {question.content.casefold().split()[2] for question, _ in held}


def test_both_sides_keep_the_order_given():
    training, held = split(talks(100), heldout=20, seed=0)
    assert (training, held) == (sorted(training, key=repr), sorted(held, key=repr))


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does():
    held = set(split(talks(100), heldout=20, seed=0)[1])
    assert set(split(talks(100)[::-1], heldout=20, seed=0)[1]) == held
    assert set(split(talks(100), heldout=20, seed=1)[1]) != held


def test_adding_rows_moves_few():
    before, after = (set(split(talks(size), heldout=100, seed=0)[1]) for size in (1000, 1010))
    assert len(before - after) <= 10


@pytest.mark.parametrize("size", [0, 20])
def test_too_few_questions_are_an_error(size):
    with pytest.raises(DataError, match=f"heldout is 20, but the conversations ask only {size} different things"):
        split([*talks(size), *talks(size)], heldout=20, seed=0)


def asked(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


ANSWERS = {
    "preferences": lambda text, reply: Preference(asked(text), reply, "No."),
    "ratings": lambda text, reply: Rating(asked(text), reply, reply == "Good."),
    "episodes": lambda text, reply: Episode((*asked(text), Message("assistant", reply)), 1.0),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_prompt_is_held_out_with_all_that_answers_it(kind):
    made = [ANSWERS[kind](f"What is {index:02}?", reply) for reply in ("Good.", "Bad.") for index in range(30)]
    training, held = split_by_prompt(made, heldout=10, seed=0)
    prompts = [{answer.prompt for answer in side} for side in (training, held)]
    assert (len(training), len(held), len(prompts[1])) == (40, 20, 10)
    assert not prompts[0] & prompts[1]
    assert [[one for one in made if one in side] for side in (training, held)] == [training, held]


def test_pairs_and_conversations_hold_out_the_same_questions():
    pairs = [Preference(talk[:-1], "Yes.", "No.") for talk in talks(50)]
    held = {pair.prompt for pair in split_by_prompt(pairs, heldout=20, seed=3)[1]}
    assert held == {talk[:-1] for talk in split(talks(50), heldout=20, seed=3)[1]}


def test_too_few_prompts_are_an_error():
    with pytest.raises(DataError, match="heldout is 1, but the rows ask only 1 different things"):
        split_by_prompt([Rating(asked("Well?"), "Yes.", True)] * 3, heldout=1, seed=0)
