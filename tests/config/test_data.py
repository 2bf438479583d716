"""What data to learn from may say, and what only tasks that are scored may."""

import pytest
from pydantic import TypeAdapter, ValidationError

from fettle.config import Arithmetic, DemonstrationsConfig, PreferenceDataConfig, ReasoningGym, WorkedPairs, WorkedSums


@pytest.mark.parametrize("kind", [WorkedSums, WorkedPairs])
@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        (Arithmetic(weight=2.0), "tasks.weight mixes environments"),
        (ReasoningGym(partial_credit=True), "tasks.partial_credit is about scoring"),
    ],
)
def test_tasks_whose_solutions_are_shown_are_neither_mixed_nor_scored(kind, tasks, why):
    with pytest.raises(ValidationError, match=why):
        kind(tasks=tasks)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_nothing_and_all(share):
    with pytest.raises(ValidationError, match="malformed"):
        WorkedPairs(malformed=share)


@pytest.mark.parametrize(
    ("union", "names"),
    [
        (DemonstrationsConfig, ("conversations", "episodes")),
        (PreferenceDataConfig, ("preferences", "ratings")),
    ],
)
def test_data_are_chosen_by_their_type(union, names):
    for name in names:
        assert TypeAdapter(union).validate_python({"type": name, "path": "a.jsonl"}).type == name
