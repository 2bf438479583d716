"""The loop on a real engine: staleness, determinism, mixtures, early ends, what is kept."""

import pytest

from fettle.errors import EnvironmentFault
from fettle.tracking import read_failures
from fettle.types import Task

from .conftest import small, trained
from .copying import questions
from .games import Game, length


@pytest.mark.parametrize("staleness", [0, 1, 2])
async def test_the_measured_lag_reaches_its_bound_and_never_passes_it(tiny, tmp_path, staleness):
    run = small(tiny, max_staleness=staleness, checkpoints={"every": 100})
    memory = (await trained(run, tmp_path)).memory
    lags = memory.column("policy/lag")
    assert max(lags) == staleness
    assert len(lags) == 6


async def test_the_same_seed_gives_the_same_history_and_another_seed_another(tiny, tmp_path):
    def told(done) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if not k.startswith(("time", "speed"))} for row in done.memory.rows]

    first, again, other = [
        told(await trained(small(tiny, seed=seed), tmp_path / name, [Game(length)]))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert first == again
    assert first != other


async def test_a_reward_it_can_reach_is_learned(tiny, tmp_path):
    """Reward the share of one letter; a few dozen steps are plenty."""

    def share(reply: str, task: Task) -> float:
        return reply.count("e") / 6

    run = small(
        tiny, steps=40, group_size=8, preset="dr_grpo", optimizer={"learning_rate": 0.01},
        evaluation={"every": 40, "tasks": 4},
    )  # fmt: skip
    rewards = (await trained(run, tmp_path, [Game(share)])).memory.column("reward/mean")
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3


async def test_grpo_learns_to_copy_beyond_the_doubt_of_its_intervals(babbler, tmp_path):
    """With no critic, in 40 steps: the 95 % intervals of held-out rewards before and after lie over 0.2 apart."""
    run = small(
        babbler, preset="grpo", environments=[questions(tmp_path)], steps=40, groups_per_step=16,
        group_size=8, sampling={"max_tokens": 1}, loss={"kl": None, "entropy_coefficient": 0.01}, minibatches=2,
        optimizer={"learning_rate": 0.003, "beta2": 0.99}, evaluation={"every": 40, "tasks": 50},
        checkpoints={"every": 40},
    )  # fmt: skip
    memory = (await trained(run, tmp_path / "run")).memory
    assert memory.column("heldout/reward_low")[1] > memory.column("heldout/reward_high")[0] + 0.2


async def test_environments_are_mixed_by_weight(tiny, tmp_path):
    two = [
        {"type": "arithmetic", "digits": 1, "heldout": 4, "weight": 3.0},
        {"type": "arithmetic", "digits": 2, "heldout": 4, "weight": 1.0},
    ]
    seen: list[str] = []

    def noted(reply: str, task: Task) -> float:
        seen.append(task.source)
        return float(len(reply))

    run = small(tiny, steps=40, group_size=2, environments=two, evaluation={"every": 40, "tasks": 2})
    await trained(run, tmp_path, [Game(noted, "often"), Game(noted, "seldom")])
    assert seen.count("often") / len(seen) == pytest.approx(0.75, abs=0.12)


async def test_patience_stops_exactly_and_the_best_weights_are_kept(tiny, tmp_path):
    """The held-out score is best at the first evaluation and never again."""
    calls = iter(range(10_000))

    def falling(reply: str, task: Task) -> float:
        return -float(next(calls))

    run = small(tiny, steps=30, evaluation={"every": 2, "tasks": 4, "patience": 3}, checkpoints={"every": 2, "keep": 2})
    done = await trained(run, tmp_path, [Game(falling)])
    assert done.summary.steps == 6
    assert len(done.memory.column("heldout/reward")) == 4
    assert sorted(path.name for path in done.folder.checkpoints.iterdir()) == [
        "step-000000",
        "step-000004",
        "step-000006",
    ]
    assert done.summary.best_checkpoint.endswith("step-000000")


async def test_a_target_that_is_reached_ends_the_run(tiny, tmp_path):
    run = small(tiny, steps=30, evaluation={"every": 2, "tasks": 4, "target": 0.0})
    assert (await trained(run, tmp_path, [Game(length)])).summary.steps == 0


async def test_failed_episodes_are_counted_and_never_a_zero_in_the_mean(tiny, tmp_path):
    calls = iter(range(10_000))

    def sometimes(reply: str, task: Task) -> float:
        if next(calls) % 3 == 0:
            raise EnvironmentFault("the checker broke")
        return 1.0

    done = await trained(small(tiny, group_size=6), tmp_path, [Game(sometimes)])
    rows = done.memory
    assert set(rows.column("reward/mean")) == {1.0}
    assert all(0.2 < share < 0.5 for share in rows.column("rollout/failed"))
    failures = read_failures(done.folder)
    assert {failure["reason"] for failure in failures} == {"the checker broke"}
    counted = {"training": 12 * sum(rows.column("rollout/failed")), "evaluation": sum(rows.column("heldout/failed"))}
    for phase, count in counted.items():
        assert sum(failure["phase"] == phase for failure in failures) == pytest.approx(count)


async def test_a_step_in_which_everything_fails_is_an_error_with_the_reason(tiny, tmp_path):
    def broken_in_training(reply: str, task: Task) -> float:
        if int(task.data["answer"]) >= 0:
            raise EnvironmentFault("the checker is gone")
        return 0.0

    with pytest.raises(
        EnvironmentFault, match=r"6 of the 6 episodes of step 1 failed, .* the first: the checker is gone"
    ):
        await trained(small(tiny), tmp_path, [Game(broken_in_training)])


async def test_groups_that_cannot_teach_are_counted_and_move_nothing(tiny, tmp_path):
    def same(reply: str, task: Task) -> float:
        return 1.0

    rows = (await trained(small(tiny), tmp_path, [Game(same)])).memory
    assert set(rows.column("rollout/uninformative_groups")) == {2.0}
    assert set(rows.column("policy/grad_norm")) == set(rows.column("advantage/nonzero")) == {0.0}


async def test_dynamic_sampling_draws_until_groups_can_teach(tiny, tmp_path):
    """Only every third task has rewards that differ; a step still gets as many of those as it asks for."""

    def telling(reply: str, task: Task) -> float:
        return length(reply, task) if int(task.data["answer"]) % 3 == 0 else 1.0

    run = small(tiny, dynamic_sampling={"max_rounds": 8}, steps=3)
    rows = (await trained(run, tmp_path, [Game(telling)])).memory
    assert all(norm > 0 for norm in rows.column("policy/grad_norm"))
    assert sum(rows.column("rollout/uninformative_groups")) > 0


async def test_each_batch_makes_as_many_optimizer_steps_as_minibatches(tiny, tmp_path):
    rows = (await trained(small(tiny, minibatches=2, steps=4), tmp_path, [Game(length)])).memory
    assert rows.column("policy/version") == [2.0, 4.0, 6.0, 8.0]
    assert any(ratio != 1.0 for ratio in rows.column("policy/ratio"))


async def test_the_reference_is_where_the_run_starts(tiny, tmp_path):
    """Before the first update policy and reference are one; afterwards they part."""
    kl = {"type": "ppo", "kl": {"coefficient": 0.1, "estimator": "k3"}}
    run = small(tiny, loss=kl, optimizer={"learning_rate": 0.01})
    found = (await trained(run, tmp_path, [Game(length)])).memory.column("policy/kl")
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[-1] > 1e-4


async def test_a_held_out_page_shows_the_conversation_and_what_was_expected(tiny, tmp_path):
    pages = (await trained(small(tiny), tmp_path)).memory.pages
    assert sorted(pages) == [0, 3, 6]
    page = pages[6][0]
    assert [message.role for message in page.messages] == ["user", "assistant"]
    assert page.note.startswith("expected answer: ")
