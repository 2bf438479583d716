"""Sets of problems: seeded, apart by repository, by time or by likeness, and loud where they are not."""

import pytest

from fettle.config.issues import Split
from fettle.errors import DataError
from fettle.issues.instances import Instance
from fettle.issues.splits import apart, check_apart, clusters, leaks, split

LONG = "the sum of a long list of measured numbers is rounded before it is divided by their count"


def problem(number: int, *, statement: str = "", change: str = "", day: int = 1, **given: str) -> Instance:
    """A problem of its own, but for what is said."""
    own = change or f"    measured_{number} = rounded_sum_of_all_values({number}) / count_of_values"
    patch = f"diff --git a/m{number}.py b/m{number}.py\n--- a/m{number}.py\n+++ b/m{number}.py\n@@ -0,0 +1 @@\n+{own}\n"
    return Instance(
        instance_id=f"o__n-{number}",
        repo="o/n",
        base_commit="b",
        patch=patch,
        problem_statement=statement or f"number {number} of {number * 7} things is {number * 13} and not {number + 1}",
        created_at=f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}T00:00:00Z",
        **given,
    )


PROBLEMS = [problem(n, day=n, root_commit=f"root-{n % 5}", patch_id=f"p{n}") for n in range(40)]


@pytest.mark.parametrize("by", ["cluster", "repository", "time"])
def test_the_same_seed_is_the_same_split_and_nothing_is_in_both(by):
    settings = Split(by=by, gap_days=3)
    training, heldout = split(PROBLEMS, settings)
    assert split(PROBLEMS, settings) == (training, heldout)
    assert len(heldout) >= 8
    assert not {one.instance_id for one in training} & {one.instance_id for one in heldout}
    if by != "time":
        assert len(training) + len(heldout) == len(PROBLEMS)
        assert split(PROBLEMS, settings.model_copy(update={"seed": 1}))[1] != heldout


def test_by_repository_none_is_parted():
    training, heldout = split(PROBLEMS, Split(by="repository"))
    assert not {one.root_commit for one in training} & {one.root_commit for one in heldout}


def test_by_time_what_is_held_out_came_later_with_a_gap():
    training, heldout = split(PROBLEMS, Split(by="time", gap_days=5))
    assert max(one.created_at for one in training) < min(one.created_at for one in heldout)
    assert (len(heldout), len(training)) == (8, 28)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"patch_id": "p3"}, "the same change"),
        ({"change": "    measured_3 = rounded_sum_of_all_values(3) / count_of_values"}, "the same lines"),
        ({"statement": LONG + " twice"}, "nearly the same words"),
    ],
)
def test_what_is_alike_is_found_and_never_parted(given, why):
    problems = [*PROBLEMS[:3], problem(3, statement=LONG, patch_id="p3"), *PROBLEMS[4:], problem(99, **given)]
    (leak,) = leaks(problems[:20], problems[20:], likeness=0.8)
    assert (leak.first, leak.second, leak.why) == ("o__n-3", "o__n-99", why)
    with pytest.raises(
        DataError, match=f"1 held-out problems are told of by others, such as o__n-3 and o__n-99: {why}"
    ):
        check_apart(problems[:20], problems[20:], likeness=0.8)
    assert ["o__n-3", "o__n-99"] in [[one.instance_id for one in each] for each in clusters(problems, likeness=0.8)]
    for seed in range(10):
        heldout = {one.instance_id for one in split(problems, Split(seed=seed))[1]}
        assert ("o__n-3" in heldout) == ("o__n-99" in heldout)


PROGRAM = "{name} = lambda {given}: sum({one} for {one} in {given} if {one} >= {number}) / max(1, len({given}))"


def test_a_copy_under_other_names_is_found_and_a_program_with_other_numbers_is_none():
    names = [
        {"name": "average", "given": "values", "one": "value", "number": 41},
        {"name": "mean_of_rest", "given": "rest", "one": "each", "number": 41},
        {"name": "average", "given": "values", "one": "value", "number": 7},
    ]
    copies = [problem(n, change=PROGRAM.format(**given)) for n, given in enumerate(names)]
    (leak,) = leaks(copies[:1], copies[1:2], likeness=0.9)
    assert leak.why == "nearly the same program under other names"
    assert leaks(copies[:1], copies[2:], likeness=0.9) == []


def test_by_time_what_is_told_of_later_is_not_trained_on():
    problems = [*PROBLEMS, problem(99, patch_id="p3", day=50)]
    training, heldout = split(problems, Split(by="time", gap_days=1))
    assert "o__n-99" in {one.instance_id for one in heldout}
    assert "o__n-3" not in {one.instance_id for one in training}


def test_what_is_apart_is_like_nothing_that_tells():
    copies = [problem(n, patch_id="p") for n in (101, 102, 109)]
    assert apart([*PROBLEMS, *copies[:2]], copies[2:], likeness=0.8) == PROBLEMS
    with pytest.raises(DataError, match=r"^1 held-out problems are told of"):
        check_apart(copies[:2], copies[2:], likeness=0.8)


def test_by_time_what_was_solved_later_is_not_trained_on():
    solved = problem(99, solved_at="2026-02-20T00:00:00Z")
    training, heldout = split([solved, *PROBLEMS], Split(by="time", gap_days=1))
    assert solved not in training
    assert solved not in heldout


def test_short_changes_are_alike_by_chance():
    pair = [problem(1, change="    x = 1"), problem(2, change="    x = 1")]
    assert leaks(pair[:1], pair[1:], likeness=0.8) == []


def test_repositories_that_leak_into_one_another_are_refused():
    problems = [problem(n, root_commit=f"root-{n % 2}", patch_id=f"p{n // 2}") for n in range(10)]
    with pytest.raises(DataError, match="5 held-out problems are told of by others"):
        split(problems, Split(by="repository"))


def test_an_empty_set_is_refused():
    with pytest.raises(DataError, match="of 1 problems split by cluster none is left to hold out"):
        split(PROBLEMS[:1], Split())
    with pytest.raises(DataError, match="none is left to train on"):
        split(PROBLEMS, Split(by="time", gap_days=400))
