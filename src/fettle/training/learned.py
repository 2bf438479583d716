"""A reward model's scores in the place of the environments' rewards, which are then only measured."""

import asyncio
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from fettle.config import LearnedReward, RLRun
from fettle.engine import Engine, Sampler
from fettle.rollouts import Group
from fettle.types import Failed, Trajectory

LEARNED, TRUE = "learned", "true"


class Scorer:
    """A reward model, and how its scores are made into rewards."""

    def __init__(self, sampler: Sampler, settings: LearnedReward) -> None:
        self._sampler = sampler
        self._settings = settings
        self._apart = asyncio.Lock()

    async def score(self, trajectory: Trajectory) -> float:
        """What the reward model says of the whole sequence, scaled and clipped."""
        said = await self._sampler.score(trajectory.tokens)
        return taken(said, self._settings)

    async def rewarded(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with learned rewards, which come at the end; their own are kept in ``measured`` as the true ones.

        An episode whose score is no finite number has failed.
        """
        scores = iter(await self._scores([t for group in groups for t in group.trajectories]))
        return [_rewarded(group, [next(scores) for _ in group.trajectories]) for group in groups]

    async def heldout_row(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """The mean score of held-out episodes, whose true reward stands beside it."""
        return {f"heldout/{LEARNED}": statistics.fmean(await self._scores(trajectories))}

    async def _scores(self, trajectories: Sequence[Trajectory]) -> list[float]:
        # A score's last bits depend on what shares its batch, and what is drawn ahead ends when it will.
        async with self._apart:
            return await asyncio.gather(*map(self.score, trajectories))


async def reward_model(run: RLRun, engine: Engine) -> Scorer | None:
    """What a run learns its rewards from; None where that is its environments."""
    if run.reward_model is None:
        return None
    return Scorer(await engine.sampler(run.reward_model.model), run.reward_model)


def taken(score: float, settings: LearnedReward) -> float:
    """The score as a reward: ``clip(scale · score, ±clip)``."""
    scaled = settings.scale * score
    if settings.clip is None or math.isnan(scaled):
        return scaled
    return max(-settings.clip, min(settings.clip, scaled))


def with_learned(trajectory: Trajectory, score: float) -> Trajectory:
    """The trajectory with ``score`` as its only reward, on the last turn; the one it had is measured as ``true``."""
    *earlier, last = trajectory.turns
    turns = (*(replace(turn, reward=0.0) for turn in earlier), replace(last, reward=score))
    measured = {**trajectory.measured, TRUE: trajectory.reward}
    return replace(trajectory, turns=turns, components={LEARNED: score}, measured=measured)


def _rewarded(group: Group, scores: Sequence[float]) -> Group:
    """The group with these scores, one for each trajectory."""
    both = list(zip(group.trajectories, scores, strict=True))
    failures = tuple(
        Failed(t.task, f"the reward model's score of a reply is {score}", t.group)
        for t, score in both
        if not math.isfinite(score)
    )
    trajectories = tuple(with_learned(t, score) for t, score in both if math.isfinite(score))
    return replace(group, trajectories=trajectories, failures=group.failures + failures)


def learned_row(groups: Sequence[Group]) -> dict[str, float]:
    """Learned and true reward of a step's episodes, before anything is added to them; nothing without a reward model.

    ``groups`` are as they were drawn.
    """
    scored = [t for group in groups for t in group.trajectories if TRUE in t.measured]
    if not scored:
        return {}
    return {
        f"reward/{LEARNED}": statistics.fmean(t.components[LEARNED] for t in scored),
        f"reward/{TRUE}": statistics.fmean(t.measured[TRUE] for t in scored),
    }
