"""Examples as what recipes read: each set is read by the reader that a run has."""

import json
from pathlib import Path

import pytest

from fettle.data import conversations, episodes, preferences
from fettle.errors import DataError
from fettle.issues.examples import SYSTEM, Example
from fettle.issues.instances import Instance
from fettle.issues.learning_sets import conversation_rows, episode_rows, messages, preference_rows, problems_of


def example(asked: str, said: str, reward: float, **about: object) -> Example:
    given = {"input_text": f"{SYSTEM}\n\n{asked}", "output_text": said, "reward": reward, "metadata": about}
    return Example.model_validate(given)


EXAMPLES = [
    example("Mend a", "well", 1.0, issue_type="bug", problem="p-1"),
    example("Mend a", "badly", 0.0, issue_type="bug", problem="p-1"),
    example("Mend b", "half", 0.5, issue_type="documentation", problem="p-2"),
]


def file(tmp_path: Path, rows: list[dict[str, object]]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_supervised_fine_tuning_is_shown_what_earned_enough(tmp_path):
    rows, dropped = conversation_rows(EXAMPLES, system=SYSTEM, min_reward=0.5)
    found = conversations(file(tmp_path, rows))
    assert [talk[-1].content for talk in found] == ["well", "half"]
    assert [(message.role, message.content) for message in found[0][:2]] == [("system", SYSTEM), ("user", "Mend a")]
    assert dropped == {"earned less than 0.5": 1}


def test_episodes_have_what_each_earned_times_the_weight_of_its_kind(tmp_path):
    rows = episode_rows(EXAMPLES, system=SYSTEM, weights={"bug": 1.0, "documentation": 0.8})
    assert [each.reward for each in episodes(file(tmp_path, rows))] == [1.0, 0.0, 0.4]


def test_the_best_is_preferred_to_what_came_to_less_of_the_same_question(tmp_path):
    rows, dropped = preference_rows(EXAMPLES, system=SYSTEM)
    (found,) = preferences(file(tmp_path, rows))
    assert (found.chosen, found.rejected, found.margin) == ("well", "badly", 1.0)
    assert dropped == {"nothing else answers the same and came to less": 1}


@pytest.mark.parametrize("own", ["", "Be brief."])
def test_what_a_text_begins_with_gives_way_to_what_the_run_s_questions_begin_with(own):
    given = example("Mend a", "well", 1.0, system=own)
    if own:
        given = given.model_copy(update={"input_text": f"{own}\n\nMend a"})
    asked = {"role": "user", "content": "Mend a"}
    assert messages(given, system="") == [asked]
    assert messages(given, system="Mine.") == [{"role": "system", "content": "Mine."}, asked]


def test_reinforcement_learning_asks_the_problems_that_examples_are_of():
    given = {"repo": "a/b", "base_commit": "0", "patch": "p", "problem_statement": "s"}
    problems = [Instance.model_validate({"instance_id": f"p-{at}", **given}) for at in (1, 2, 3)]
    assert [one.instance_id for one in problems_of(EXAMPLES, problems)] == ["p-1", "p-2"]
    with pytest.raises(DataError, match="p-2, which is not among the 1 problems"):
        problems_of(EXAMPLES, problems[:1])
