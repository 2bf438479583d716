"""Choosing trajectories, and parting them so that no issue is on both sides."""

import pytest

from fettle.config.issues import Split
from fettle.errors import DataError
from fettle.issues.selection import REASONS, Selection, augmented, parted, selected
from fettle.issues.trajectories import IssueTrajectory
from tests.issues.attempts import STEPS, trajectory

BODIES = (
    "the parser gives up at an empty file and says nothing of it",
    "colours of the plot are swapped when the legend stands below",
    "a second login while the first one waits ends both sessions",
    "numbers with a comma are read as two columns instead of one",
    "after a month of uptime the counter of requests runs backwards",
    "leap years have a wrong last week in the printed calendar",
)


def made(number: int = 7, **given: object) -> IssueTrajectory:
    entry = trajectory(number, **given)
    body = BODIES[number % len(BODIES)]
    return IssueTrajectory.model_validate({**entry, "metadata": {**entry["metadata"], "issue_body": body}})


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Selection(min_steps=5), "fewer steps than min_steps"),
        (Selection(max_steps=3), "more steps than max_steps"),
        (Selection(issue_types=("feature",)), "of another kind than issue_types"),
        (Selection(repositories=("ada/other",)), "of another repository"),
        (Selection(min_reward=2.0), "earned less than min_reward, or nothing was tested"),
    ],
)
def test_what_is_not_wanted_is_counted_by_its_reason(wanted, reason):
    assert reason in REASONS
    assert selected([made()], wanted) == ([], {reason: 1})
    assert selected([made()], Selection()) == ([made()], {})


def test_order_is_kept_and_what_was_never_tested_earned_nothing():
    entries = [made(1), made(2, outcome=None), made(3, steps=STEPS[:2])]
    kept, dropped = selected(entries, Selection(min_reward=0.5))
    assert kept == [entries[0], entries[2]]
    assert sum(dropped.values()) == 1


def test_what_is_asked_in_other_ways_has_the_same_steps_and_is_counted():
    untitled = made(3, metadata={"issue_title": ""})
    found, added = augmented([made(1), untitled, made(2)], ("title", "body"))
    assert added == {"asked by its title alone": 2, "asked by its body alone": 2}
    told = [(one.issue_id, bool(one.metadata.issue_title), bool(one.metadata.issue_body)) for one in found]
    ways = [(True, True), (True, False), (False, True)]
    first, second = ([(made(number).issue_id, *way) for way in ways] for number in (1, 2))
    assert told == [*first, (untitled.issue_id, False, True), *second]
    assert {one.steps for one in found} == {made(1).steps}
    assert augmented([made(1)], ()) == ([made(1)], {})


def test_the_same_seed_parts_alike_and_no_issue_is_on_both_sides():
    entries = [made(number) for number in range(6)] + [made(number, steps=STEPS[:1]) for number in range(6)]
    first = parted(entries, Split(heldout=0.3, seed=1))
    assert first == parted(entries, Split(heldout=0.3, seed=1))
    training, heldout = ({one.issue_id for one in side} for side in first)
    assert training
    assert heldout
    assert not training & heldout
    assert sum(map(len, first)) == 12


def test_issues_that_say_the_same_are_never_parted():
    about = trajectory(1)["metadata"]
    alike = [IssueTrajectory.model_validate(trajectory(number, metadata=about)) for number in (1, 2)]
    with pytest.raises(DataError, match="none is left to"):
        parted(alike, Split(heldout=0.5))
