"""From rewards to what the engine is given, by hand."""

import numpy as np
import pytest

from fettle.rollouts import Group
from fettle.training.credit import credited, scored, shaped, teaching, weighted
from fettle.training.metrics import divergence
from fettle.types import Completion, Message, Task, Trajectory, Turn

from .conftest import small

TASK = Task((Message("user", "?"),), {"answer": "!"}, "test")


def trajectory(reward: float, length: int, name: str) -> Trajectory:
    completion = Completion([5] * length, [-1.0] * length, "stop", 0)
    return Trajectory(TASK, (Turn([1, 2], completion, reward),), (), True, False, {"test": reward}, group=name)


def group(*members: tuple[float, int], name: str = "g") -> Group:
    return Group(TASK, tuple(trajectory(*member, name) for member in members), ())


class Reference:
    """Satisfies ``Sampler`` as far as scoring goes: every token has the same probability."""

    policy_version = 0

    async def sample(self, prompt, n, params):
        raise AssertionError("a reference is only asked for scores")

    async def logprobs(self, tokens, *, temperature=1.0):
        return [None] + [-2.0] * (len(tokens) - 1)


async def test_grpo_by_hand():
    """Rewards 1, 0, 0, 1: mean 1/2, unbiased std 1/√3; sequences of 1 and 3 tokens weigh 1/4 and 1/12 a token."""
    run = small("unused", group_size=4)
    drawn = [group((1.0, 1), (0.0, 3), (0.0, 1), (1.0, 3))]
    data = weighted(credited(drawn, await scored(drawn, None), run), run)
    size = 0.5 / np.sqrt(1 / 3)
    assert [d.streams["advantages"][-1] for d in data] == pytest.approx([size, -size, -size, size])
    assert [d.streams["weights"].tolist() for d in data[:2]] == [[0, 0, 0.25], pytest.approx([0, 0, *[1 / 12] * 3])]
    assert all(not d.streams["advantages"][d.loss_mask == 0].any() for d in data)


async def test_the_divergence_in_the_reward_is_taken_off_before_comparing():
    """RLOO: R = r - β Σ (log π - log ρ) with log π = -1 and log ρ = -2, so one nat a token."""
    run = small(
        "unused", group_size=2, preset="rloo", loss={"kl": {"coefficient": 0.1, "estimator": "k1", "place": "reward"}}
    )
    drawn = [group((1.0, 2), (0.0, 1))]
    data = weighted(credited(drawn, await scored(drawn, Reference()), run), run)
    assert [d.streams["advantages"][-1] for d in data] == pytest.approx([0.8 - (-0.1), -0.1 - 0.8])


async def test_the_reference_rides_along_where_the_loss_reads_it():
    run = small("unused", group_size=2, loss={"kl": {"coefficient": 0.1}})
    drawn = [group((1.0, 2), (0.0, 1))]
    data = weighted(credited(drawn, await scored(drawn, Reference()), run), run)
    assert data[0].streams["reference_logprobs"].tolist() == [0, 0, -2, -2]


async def test_the_divergence_is_the_k3_mean_over_drawn_tokens():
    drawn = [group((1.0, 2), (0.0, 1))]
    found = divergence(await scored(drawn, Reference()))["policy/kl"]
    assert found == pytest.approx(np.exp(-1) - 1 + 1)
    assert divergence(await scored(drawn, None)) == {}


def test_long_completions_lose_reward_under_a_name():
    """DAPO's soft punishment with a limit of 6 and half of it as buffer: 5 tokens are 2/3 into it."""
    run = small("unused", overlong={"buffer": 0.5})
    found = shaped(group((1.0, 5), (1.0, 2)), run).trajectories
    assert [t.reward for t in found] == pytest.approx([1 - 2 / 3, 1.0])
    assert found[0].components == {"test": 1.0, "overlong": pytest.approx(-2 / 3)}


async def test_sequences_without_advantage_are_not_run_where_the_loss_promises_they_teach_nothing():
    run = small("unused", group_size=2)
    drawn = [group((1.0, 2), (0.0, 1)), group((1.0, 2), (1.0, 1), name="h")]
    data = weighted(credited(drawn, await scored(drawn, None), run), run)
    assert teaching(data, run.loss) == data[:2]
    assert teaching(data[2:], run.loss) == data[2:]
    for still_pulling in ({"type": "dro"}, {"kl": {"coefficient": 0.1}}):
        loss = small("unused", loss=still_pulling).loss
        assert teaching(data, loss) == data


async def test_a_batch_is_compared_as_a_whole_before_it_is_split():
    """REINFORCE++ compares the tokens of all groups: one right and one wrong group are apart, also in minibatches."""
    run = small("unused", preset="reinforce_pp", loss={"kl": None}, minibatches=2, max_staleness=0)
    drawn = [group((1.0, 1), (1.0, 1), name="right"), group((0.0, 1), (0.0, 1), name="wrong")]
    data = credited(drawn, await scored(drawn, None), run)
    assert [[d.streams["advantages"][-1] for d in rows] for rows in data] == [[1, 1], [-1, -1]]
    assert [d.streams["weights"].sum() for d in weighted(data[:1], run)] == [0.5, 0.5]
