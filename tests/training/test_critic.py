"""A critic: by hand, on a task it makes learnable, and as a model of its own."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from fettle.advantages import token_gae
from fettle.broker import Broker
from fettle.config import LocalEngine, PolicySpec, Reading
from fettle.engine.local import LocalBackend
from fettle.rollouts import Group, to_datum
from fettle.training.critic import critic_spec, judged, policy_spec, turn_rewards, valued
from fettle.training.metrics import critic_row
from fettle.types import Completion, ForwardResult, Message, Task, Trajectory, Turn, datum

from .conftest import small, trained
from .copying import CHANCE, questions
from .games import Game, length

TASK = Task((Message("user", "?"),), {"answer": "!"}, "test")


def turn(tokens: int, reward: float, stop_reason: str = "stop", seen: int = 2) -> Turn:
    return Turn([1] * seen, Completion([5] * tokens, [-1.0] * tokens, stop_reason, 0), reward)


def episode(*turns: Turn, truncated: bool = False) -> Trajectory:
    return Trajectory(TASK, turns, (), not truncated, truncated, group="g")


class Oracle:
    """Satisfies ``Policy`` as far as reading goes: values and the worth of ends are as told."""

    def __init__(self, value: float, end: float) -> None:
        self.value, self.end = value, end

    async def forward(self, data, loss):
        values = [datum.loss_mask * np.float32(self.value) for datum in data]
        return ForwardResult(0.0, {}, [], 0, values=values, scores=[self.end] * len(data))


def ppo(**settings):
    return small("unused", preset="ppo", **settings)


async def credited(trajectories: list[Trajectory], run, oracle: Oracle):
    group = Group(TASK, tuple(trajectories), ())
    return judged([group], await valued([to_datum(t) for t in trajectories], oracle), run, run.critic)


def test_each_turns_reward_stands_on_its_last_token():
    found = turn_rewards(episode(turn(2, 0.5), turn(1, 1.0, seen=3)))
    assert found.tolist() == [0, 0, 0, 0.5, 0, 0, 0, 1.0]


@pytest.mark.parametrize(
    ("last", "truncated", "worth"),
    [
        (turn(2, 1.0), False, 0.0),
        (turn(2, 1.0), True, 0.75),  # the environment would have gone on
        (turn(2, 1.0, "length"), True, 0.0),  # the reply was cut, and scored as it is
    ],
)
async def test_what_was_left_unfinished_counts_what_the_critic_says_of_its_end(last, truncated, worth):
    """With λ = 1 and γ = 1 the return of every token is the reward and the worth of the end."""
    run = ppo(critic={"gae_lambda": 1.0})
    (found,) = await credited([episode(last, truncated=truncated)], run, Oracle(0.25, 0.75))
    assert found.streams["returns"].tolist() == [0, 0, 1 + worth, 1 + worth]


async def test_advantages_are_those_of_the_paper_and_only_they_are_normalised():
    run = ppo(critic={"gamma": 0.9, "gae_lambda": 0.8, "normalize": "batch"})
    episodes = [episode(turn(3, 1.0)), episode(turn(2, 0.0))]
    found = await credited(episodes, run, Oracle(0.5, 0.0))
    raw, returns = token_gae(
        [0, 0, 0, 0, 1], [0, 0, 0.5, 0.5, 0.5], found[0].loss_mask, bootstrap=0, gamma=0.9, lam=0.8
    )
    assert found[0].streams["returns"].tolist() == returns.tolist() != raw.tolist()
    trained_on = np.concatenate([d.streams["advantages"][d.loss_mask > 0] for d in found])
    assert (trained_on.mean(), trained_on.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1))


async def test_the_divergence_in_the_reward_is_taken_off_token_by_token():
    """One nat a token at β = 0.1: what is still to come of it is in the return."""
    run = ppo(loss={"kl": {"coefficient": 0.1}}, critic={"gae_lambda": 1.0, "normalize": "none"})
    one = to_datum(episode(turn(3, 1.0)), reference_logprobs=np.float32([0, 0, -2, -2, -2]))
    (found,) = judged(
        [Group(TASK, (episode(turn(3, 1.0)),), ())], await valued([one], Oracle(0.0, 0.0)), run, run.critic
    )
    assert found.streams["returns"].tolist() == pytest.approx([0, 0, 0.7, 0.8, 0.9])
    assert found.streams["advantages"].tolist() == pytest.approx([0, 0, 0.7, 0.8, 0.9])


async def test_a_perfect_critic_explains_everything_and_a_terrible_one_less_than_nothing():
    run = ppo(critic={"gae_lambda": 1.0})
    perfect = [d for r in (0.0, 1.0) for d in await credited([episode(turn(2, r))], run, Oracle(r, 0.0))]
    assert critic_row([perfect]) == {
        "critic/explained_variance": 1.0,
        "critic/value_mean": 0.5,
        "critic/return_mean": 0.5,
        "critic/advantage_mean": 0.0,
        "critic/advantage_std": 0.0,
    }
    wrong = [d for r in (0.0, 1.0) for d in await credited([episode(turn(2, r))], run, Oracle(3 - 3 * r, 0.0))]
    assert critic_row([wrong])["critic/explained_variance"] == pytest.approx(1 - 16)


def test_a_critic_stands_on_the_policy_or_is_made_as_the_policy_is():
    on_it, own = ppo(), ppo(critic={"place": "model"})
    assert (policy_spec(on_it).head, critic_spec(on_it)) == ("value", None)
    assert (policy_spec(own).head, critic_spec(own)) == (None, own.policy.model_copy(update={"head": "value"}))
    elsewhere = ppo(critic={"place": "model", "model": "a-reward-model"})
    assert critic_spec(elsewhere) == PolicySpec(model="a-reward-model", head="value")


@pytest.mark.parametrize("seed", [0, 1])
async def test_ppo_with_a_critic_learns_to_copy(babbler, tmp_path, seed):
    """From chance to over 0.9 of held-out questions right in 32 steps, whatever the seed."""
    run = small(
        babbler, seed=seed, preset="ppo", environments=[questions(tmp_path)],
        steps=32, groups_per_step=32, group_size=4, sampling={"max_tokens": 1},
        loss={"kl": None, "entropy_coefficient": 0.01}, optimizer={"learning_rate": 0.006, "beta2": 0.99},
        evaluation={"every": 32, "tasks": 50}, checkpoints={"every": 32},
    )  # fmt: skip
    done = await trained(run, tmp_path / "run")
    before, after = done.memory.column("heldout/reward")
    assert before < CHANCE + 0.15
    assert after > 0.9
    assert done.memory.column("critic/value_loss")[-1] < done.memory.column("critic/value_loss")[10]


async def test_in_the_first_steps_only_a_critic_of_its_own_learns(tiny, tmp_path):
    run = small(
        tiny, preset="ppo", critic={"place": "model", "warmup_steps": 2, "optimizer": {"learning_rate": 0.01}},
        loss={"kl": None}, steps=3, checkpoints={"every": 1, "keep": 9}, evaluation={"every": 9, "tasks": 4},
    )  # fmt: skip
    done = await trained(run, tmp_path, [Game(length)])

    def weights(name: str) -> list[torch.Tensor]:
        return list(load_file(done.folder.checkpoints / name / "model.safetensors").values())

    def same(first: str, second: str) -> bool:
        return all(map(torch.equal, weights(first), weights(second)))

    assert same("step-000000", "step-000002")
    assert not same("step-000002", "step-000003")
    assert not same("step-000000.critic", "step-000001.critic")
    assert done.memory.column("critic/version") == [4.0, 8.0, 12.0]
    assert done.memory.column("policy/version") == [4.0]


async def test_a_critics_checkpoint_is_dropped_with_the_policys(tiny, tmp_path):
    run = small(tiny, preset="ppo", critic={"place": "model"}, loss={"kl": None}, checkpoints={"every": 2, "keep": 1},
                evaluation={"every": 6, "tasks": 4})  # fmt: skip
    done = await trained(run, tmp_path)
    names = {path.name for path in done.folder.checkpoints.iterdir()}
    assert {"step-000006", "step-000006.critic"} <= names
    assert not {"step-000002", "step-000002.critic"} & names


async def test_the_end_of_a_sequence_can_be_read_with_a_value_head(tiny, tmp_path):
    """What the head says after the last token is what it says before one that would follow."""
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    policy = await engine.create_policy(PolicySpec(model=tiny, head="value"))
    (end,) = (await policy.forward([datum([5, 6, 7], [0, 1, 1])], Reading(of="scores"))).scores
    (values,) = (await policy.forward([datum([5, 6, 7, 8], [0, 1, 1, 1])], Reading(of="values"))).values
    engine.close()
    assert end == pytest.approx(values[-1])


def test_a_head_cannot_be_warmed_up_alone():
    with pytest.raises(ValidationError, match="cannot learn without moving the policy's weights: use place: model"):
        ppo(critic={"warmup_steps": 1})
