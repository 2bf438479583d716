"""A reward model's score is what is learned from, and the true reward is what is told."""

import asyncio
import math
from dataclasses import dataclass

import pytest

from fettle.config import LearnedReward
from fettle.errors import ModelError
from fettle.rollouts import Group
from fettle.training.learned import Scorer, learned_row, taken
from fettle.types import Completion, Message, Task, Trajectory, Turn

from .conftest import small, trained
from .games import Game, length
from .tastes import FIGURES, LETTERS, reward_model

TASK = Task((Message("user", "?"),), {"answer": "!"}, "test")


@dataclass
class Said:
    """Satisfies ``Sampler`` as far as scoring goes: the score is as told, by the number of tokens."""

    scores: dict[int, float]

    async def score(self, tokens):
        return self.scores[len(tokens)]


def turn(tokens: int, reward: float) -> Turn:
    return Turn([1, 1], Completion([5] * tokens, [-1.0] * tokens, "stop", 0), reward)


def group(*episodes: tuple[Turn, ...]) -> Group:
    return Group(TASK, tuple(Trajectory(TASK, turns, (), True, False, {"answer": 1.0}) for turns in episodes), ())


@pytest.mark.parametrize(
    ("settings", "score", "reward"),
    [
        ({}, -7.5, -7.5),
        ({"scale": 0.5}, -7.5, -3.75),
        ({"scale": 2.0, "clip": 3.0}, 1.0, 2.0),
        ({"scale": 2.0, "clip": 3.0}, 2.0, 3.0),  # scaled first, then clipped
        ({"clip": 3.0}, -9.0, -3.0),
    ],
)
def test_scores_are_scaled_and_then_clipped(settings, score, reward):
    assert taken(score, LearnedReward(model="m", **settings)) == reward


async def test_the_whole_conversation_is_scored_and_its_reward_comes_at_the_end():
    scorer = Scorer(Said({8: 0.25}), LearnedReward(model="m"))
    [rewarded] = await scorer.rewarded([group((turn(3, 1.0), turn(1, 0.5)))])
    [found] = rewarded.trajectories
    assert [each.reward for each in found.turns] == [0.0, 0.25]
    assert found.components == {"learned": 0.25}
    assert found.measured == {"true": 1.5}


async def test_the_means_of_both_are_told():
    scorer = Scorer(Said({3: 0.25, 4: 0.75}), LearnedReward(model="m"))
    drawn = group((turn(1, 1.0),), (turn(2, 0.0),))
    assert learned_row(await scorer.rewarded([drawn])) == {"reward/learned": 0.5, "reward/true": 0.5}
    assert learned_row([drawn]) == {}


async def test_an_episode_without_a_finite_score_has_failed():
    scorer = Scorer(Said({3: math.nan, 4: 0.75}), LearnedReward(model="m", clip=1.0))
    [found] = await scorer.rewarded([group((turn(1, 1.0),), (turn(2, 0.0),))])
    assert found.rewards == [0.75]
    assert [failure.reason for failure in found.failures] == ["the reward model's score of a reply is nan"]


@dataclass
class Crowded:
    """Satisfies ``Sampler`` as far as scoring goes: the score is how many are being scored when all have come."""

    inside: int = 0

    async def score(self, tokens):
        self.inside += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        said = self.inside
        await asyncio.sleep(0)
        self.inside -= 1
        return float(said)


async def test_the_groups_of_a_round_are_scored_together_and_never_with_those_of_another():
    scorer = Scorer(Crowded(), LearnedReward(model="m"))
    pair = group((turn(1, 1.0),), (turn(2, 0.0),))
    rounds = await asyncio.gather(*(scorer.rewarded([pair] * size) for size in (2, 3)))
    assert [[each.rewards for each in found] for found in rounds] == [[[4.0, 4.0]] * 2, [[6.0, 6.0]] * 3]


async def test_the_policy_learns_what_the_reward_model_likes(tiny, tmp_path):
    """The environment pays for length alone; the reward model, taught on pairs, likes figures."""
    likes = await reward_model(tiny, tmp_path / "models", liked=FIGURES, disliked=LETTERS)
    run = small(
        tiny, steps=20, group_size=8, preset="dapo", dynamic_sampling=None, overlong=None,
        optimizer={"learning_rate": 0.03}, reward_model={"model": likes, "scale": 0.5, "clip": 4.0},
        evaluation={"every": 10, "tasks": 4},
    )  # fmt: skip
    said = []

    def noted(reply, task):
        said.append(reply)
        return length(reply, task)

    rows = (await trained(run, tmp_path, [Game(noted)])).memory
    learned = rows.column("reward/learned")
    assert learned == rows.column("reward/mean")
    assert max(map(abs, learned)) <= 4.0
    assert sum(learned[-4:]) > sum(learned[:4]) + 4
    figures = [sum(each in FIGURES for each in reply) / max(1, len(reply)) for reply in said]
    assert sum(figures[-64:]) > sum(figures[:64]) + 6
    heldout = rows.column("heldout/learned")
    assert len(heldout) == 3
    assert heldout[-1] > heldout[0]
    assert all(0 <= reward <= 2 for reward in rows.column("heldout/reward"))  # the environment's own, a tenth a letter
    assert rows.column("reward/true") != learned


async def test_a_model_without_a_reward_head_is_no_reward_model(tiny, tmp_path):
    with pytest.raises(ModelError, match="no reward head"):
        await trained(small(tiny, reward_model={"model": tiny}), tmp_path, [Game(length)])
