"""What a batch does to the policy: how often, to which completions, at which rates, against which reference."""

import pytest

from fettle.config import PPO, AdamW, TinyModel
from fettle.engine.local import make_tiny_model
from fettle.rollouts import Group, to_datum
from fettle.training.credit import credited, scored, teaching, weighted
from fettle.training.metrics import outcome_row
from fettle.training.updates import updates
from fettle.types import Completion, ForwardResult, Message, OptimResult, Task, Trajectory, Turn

from .conftest import QUESTION, small, trained
from .games import Game, length

TASK = Task((Message("user", "?"),), {"answer": "!"}, "test")


def episode(reward: float, tokens: int, *, cut: bool = False) -> Trajectory:
    completion = Completion([5] * tokens, [-1.0] * tokens, "length" if cut else "stop", 0)
    return Trajectory(TASK, (Turn([1, 2], completion, reward),), (), not cut, cut, group="g")


def drawn(*episodes: Trajectory) -> list[Group]:
    return [Group(TASK, episodes, ())]


async def test_what_was_cut_short_is_out_of_the_loss_and_still_in_the_baseline():
    """Dr. GRPO's mean of rewards 1, 0, 0 is 1/3 with the cut one in it; its token is not counted in the mean."""
    group = drawn(episode(1.0, 2), episode(0.0, 1), episode(0.0, 1, cut=True))
    settings = {"preset": "dr_grpo", "reduction": {"type": "token_mean"}}
    kept, masked = (small("unused", **settings, mask_truncated=flag) for flag in (False, True))
    for run, share, third in ((kept, 1 / 4, 1 / 4), (masked, 1 / 3, 0.0)):
        data = weighted(credited(group, await scored(group, None), run), run)
        assert [d.streams["advantages"][-1] for d in data] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
        assert [d.weights[-1] for d in data] == pytest.approx([share, share, third])
        assert len(teaching(data, run.loss)) == (2 if run is masked else 3)


async def test_a_batch_in_which_all_was_cut_short_moves_nothing_and_is_a_step(tiny, tmp_path):
    run = small(tiny, mask_truncated=True, sampling={"max_tokens": 1}, steps=2)
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert set(rows.column("rollout/truncated")) == {1.0}
    assert set(rows.column("policy/grad_norm")) == {0.0}
    assert rows.column("policy/version") == [1.0, 2.0]


async def test_each_epoch_goes_over_the_same_minibatches_at_a_rate_of_its_own():
    groups = [drawn(episode(1.0, 1), episode(0.0, 1))[0] for _ in range(4)]
    run = small("unused", minibatches=2, epochs=2, steps=2, schedule={"type": "linear"}, groups_per_step=4)
    data = credited(groups, await scored(groups, None), run)
    wanted = updates(data, run, AdamW(learning_rate=0.7), step=1)
    assert [len(update.data) for update in wanted] == [4] * 4
    assert wanted[0].data is wanted[2].data is not wanted[1].data
    # Steps 4 to 7 of 8, on a line from the peak to 0.
    assert [update.adam.learning_rate for update in wanted] == pytest.approx([0.3, 0.2, 0.1, 0.0])


async def test_epochs_make_further_versions_and_ratios(tiny, tmp_path):
    run = small(tiny, epochs=2, minibatches=2, max_staleness=4, steps=4, checkpoints={"every": 9})
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert rows.column("policy/version") == [4.0, 8.0, 12.0, 16.0]
    assert rows.column("policy/lag") == [0.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("term", [{"entropy_coefficient": 0.1}, {"proximal_coefficient": 0.1}, {"value": {}}])
async def test_what_pulls_without_advantage_needs_every_sequence(term):
    group = drawn(episode(1.0, 1), episode(1.0, 1))
    run = small("unused")
    data = weighted(credited(group, await scored(group, None), run), run)
    assert len(teaching(data + data, PPO.model_validate(term))) == 4


async def test_another_reference_is_a_distance_from_the_first_step(tiny, tmp_path):
    other = make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, seed=1), tmp_path / "other", texts=[QUESTION] * 20)
    run = small(tiny, reference=other, loss={"kl": {"coefficient": 0.1}}, steps=1)
    rows = (await trained(run, tmp_path / "run", [Game(length)])).memory
    assert rows.column("policy/kl")[0] > 0.01
    assert rows.column("engine/frozen_models") == [1.0]


async def test_an_entropy_bonus_keeps_the_policy_undecided(tiny, tmp_path):
    """Both learn to write one letter; the one that is paid for entropy stays further from certain."""

    def share(reply: str, task: Task) -> float:
        return reply.count("e") / 6

    found = []
    for name, coefficient in (("without", 0.0), ("with", 0.1)):
        run = small(
            tiny, preset="dr_grpo", group_size=8, loss={"entropy_coefficient": coefficient}, steps=25,
            optimizer={"learning_rate": 0.01}, evaluation={"every": 25, "tasks": 4},
        )  # fmt: skip
        found.append((await trained(run, tmp_path / name, [Game(share)])).memory.column("policy/entropy")[-1])
    assert found[1] > found[0] + 0.5


def test_of_several_steps_the_greatest_is_the_greatest_and_a_mean_counts_tokens():
    first = ForwardResult(1.0, {"ratio": 1.0, "ratio_max": 3.0, "ratio_min": 0.5, "value_loss": 2.0}, [], num_tokens=3)
    second = ForwardResult(2.0, {"ratio": 2.0, "ratio_max": 2.0, "ratio_min": 0.1, "value_loss": 6.0}, [], num_tokens=1)
    row = outcome_row([(first, OptimResult(1, 1.0)), (second, OptimResult(2, 3.0, skipped=True))], "policy")
    assert row == {
        "policy/ratio": 1.25,
        "policy/ratio_max": 3.0,
        "policy/ratio_min": 0.1,
        "critic/value_loss": 3.0,
        "policy/loss": 1.5,
        "policy/grad_norm": 2.0,
        "policy/skipped_steps": 1.0,
        "policy/version": 2.0,
    }


def test_a_datum_says_whether_its_episode_was_cut_and_whether_it_would_have_gone_on():
    flags = {"stop": (1.0, 1.0), "length": (1.0, 0.0)}
    for reason, expected in flags.items():
        turn = Turn([1], Completion([5], [-1.0], reason, 0), 0.0)
        scalars = to_datum(Trajectory(TASK, (turn,), (), False, True)).scalars
        assert (scalars["truncated"], scalars["unfinished"]) == expected
    assert not any(to_datum(episode(1.0, 1)).scalars.values())
