"""A buffer of earlier groups: bounded, repeatable, and written down without loss."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fettle.rollouts import Group
from fettle.rollouts.replay import Replay
from fettle.types import Completion, Failed, Message, Task, Trajectory, Turn

TASK = Task((Message("user", "?"),), {"answer": "!"}, "test")


def group(name: str, *versions: int, failures: int = 0) -> Group:
    """One trajectory for each version of the policy that drew it."""
    turns = ((Turn([1], Completion([5], [-0.5], "stop", version), 1.0),) for version in versions)
    trajectories = tuple(Trajectory(TASK, turn, (), True, False, group=name) for turn in turns)
    return Group(TASK, trajectories, tuple(Failed(TASK, "broke", name) for _ in range(failures)))


def names(groups: list[Group]) -> list[str]:
    return [group.trajectories[0].group for group in groups]


def filled(**settings) -> Replay:
    buffer = Replay(**{"capacity": 8, "max_age": None, "seed": 3, **settings})
    buffer.add(group(str(version), version) for version in range(8))
    return buffer


def test_the_oldest_groups_go_where_there_are_too_many():
    buffer = Replay(capacity=2, max_age=None, seed=0)
    buffer.add([group("a", 0), group("b", 1)])
    buffer.add([group("c", 2)])
    assert sorted(names(buffer.sample(9, step=0, policy_version=3))) == ["b", "c"]


def test_no_group_is_drawn_twice_and_never_more_than_there_are():
    buffer = filled()
    assert len(set(names(buffer.sample(5, step=0, policy_version=8)))) == 5
    assert sorted(names(buffer.sample(99, step=0, policy_version=8))) == [str(version) for version in range(8)]
    assert Replay(capacity=2, max_age=None, seed=0).sample(4, step=0, policy_version=0) == []


def test_a_draw_depends_on_the_seed_and_the_step_and_not_on_earlier_draws():
    buffer, other = filled(), filled()
    for step in range(5):
        other.sample(3, step=step, policy_version=8)
    assert names(buffer.sample(4, step=7, policy_version=8)) == names(other.sample(4, step=7, policy_version=8))
    draws = {tuple(names(filled(seed=seed).sample(4, step=s, policy_version=8))) for seed in (0, 1) for s in (0, 1)}
    assert len(draws) == 4


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=20), st.integers(1, 5))
def test_nothing_that_is_drawn_is_older_than_the_bound(events, max_age):
    """Policies step on by the first number, and groups are drawn by a policy that is behind by the second."""
    buffer, version = Replay(capacity=6, max_age=max_age, seed=0), 0
    for step, (steps, behind) in enumerate(events):
        version += steps
        buffer.add([group(str(step), version, max(0, version - behind))])
        for drawn in buffer.sample(4, step=step, policy_version=version):
            assert all(version - trajectory.policy_version <= max_age for trajectory in drawn.trajectories)


def test_a_group_is_as_old_as_its_oldest_trajectory_and_leaves_for_good():
    buffer = Replay(capacity=4, max_age=2, seed=0)
    buffer.add([group("mixed", 5, 3), group("new", 5)])
    assert sorted(names(buffer.sample(4, step=0, policy_version=5))) == ["mixed", "new"]
    assert names(buffer.sample(4, step=1, policy_version=6)) == ["new"]
    assert len(buffer) == 1


def test_a_group_of_failures_alone_is_not_kept():
    buffer = Replay(capacity=4, max_age=None, seed=0)
    buffer.add([group("broken", failures=2), group("half", 1, failures=1)])
    assert names(buffer.sample(4, step=0, policy_version=1)) == ["half"]


def test_a_buffer_that_was_written_down_goes_on_as_if_it_had_not_been():
    kept = filled(max_age=6)
    kept.sample(2, step=0, policy_version=8)
    lines = [json.dumps(row) for row in kept.rows()]
    restored = Replay(capacity=8, max_age=6, seed=3)
    restored.add([group("what was there before", 9)])
    restored.restore(json.loads(line) for line in lines)
    for step in range(1, 4):
        for buffer in (kept, restored):
            buffer.add([group(f"new {step}", 8 + step)])
        version = 8 + step
        assert names(restored.sample(3, step=step, policy_version=version)) == names(
            kept.sample(3, step=step, policy_version=version)
        )
