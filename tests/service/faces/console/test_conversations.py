"""Samples: episodes that clients tell of, grouped, whatever is in them."""

import math

import pytest

from fettle.service.faces.console.conversations import MOST_GROUPS, groups_of_episodes, shade
from fettle.service.faces.console.shown import LONGEST


def episode(step: int, reply: str = "5", *, group: str = "g", reward: object = 1.0, **more: object) -> dict:
    messages = [{"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": reply}]
    return {"step": step, "group": group, "reward": reward, "messages": messages, **more}


def test_a_group_shares_its_prompt_and_keeps_its_answers_apart():
    [group] = groups_of_episodes([episode(1, "5"), episode(1, "6", reward=0.0)])
    assert [each.text for each in group.prompt] == ["2 + 3"]
    assert [[each.text for each in sample.said] for sample in group.samples] == [["5"], ["6"]]
    assert group.mean == 0.5


def test_the_same_answer_twice_is_still_an_answer():
    [group] = groups_of_episodes([episode(1), episode(1)])
    assert [[each.text for each in sample.said] for sample in group.samples] == [["5"], ["5"]]


def test_the_newest_groups_come_first_and_no_more_than_a_page():
    groups = groups_of_episodes([episode(step) for step in range(3 * MOST_GROUPS)])
    assert len(groups) == MOST_GROUPS
    assert groups[0].title == f"Step {3 * MOST_GROUPS - 1}, group g"


def test_episodes_without_a_group_stand_alone():
    assert len(groups_of_episodes([episode(1, group=""), episode(1, group="")])) == 2


def test_steps_and_rewards_can_be_asked_for():
    rows = [episode(1, reward=0.0), episode(2, reward=1.0), episode(3, reward=0.5)]
    assert [group.title for group in groups_of_episodes(rows, step=2)] == ["Step 2, group g"]
    assert len(groups_of_episodes(rows, least=0.5)) == 2
    assert groups_of_episodes(rows, least=math.inf) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": "text"},
        {"messages": [1, {"role": None, "content": {"a": 1}}]},
        {"messages": []},
        {"reward": "high", "components": [1], "advantage": {}, "note": 3, "tokens": "x"},
        {"tokens": [{"text": "5", "logprob": "no"}, 7]},
        {"group": {"a": 1}},
    ],
)
def test_whatever_an_episode_holds_it_can_be_shown(odd):
    assert len(groups_of_episodes([episode(1) | odd])) == 1


def test_huge_texts_are_cut():
    [group] = groups_of_episodes([episode(1, "x" * 1_000_000)])
    said = group.samples[0].said[0]
    assert (len(said.text), said.more) == (LONGEST, 1_000_000 - LONGEST)


def test_tokens_are_coloured_by_their_probability():
    tokens = [{"text": "5", "logprob": math.log(0.95)}, {"text": "!", "logprob": -9.0}]
    [group] = groups_of_episodes([episode(1, "5!", tokens=tokens)])
    assert [(piece.text, piece.shade) for piece in group.samples[0].said[0].pieces] == [("5", 0), ("!", 6)]


def test_shades_go_from_certain_to_unlikely():
    shades = [shade(math.log(p)) for p in (1.0, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.01)]
    assert shades == sorted(shades)
    assert shade(0.5) == 0  # rounding may put a logarithm above 0
