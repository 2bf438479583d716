"""What the loop itself costs, without a model: processor time, measured with an engine that answers at once."""

import asyncio
import pickle
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import models
from benchmarks.cluster_sim.slow import Known, Slow
from fettle.chat import Template, load_tokenizer
from fettle.config import AdamW, LossConfig, RLRun, SamplingParams
from fettle.rollouts import to_datum
from fettle.training.drawing import Drawer
from fettle.training.learning import Learner
from fettle.training.players import Players
from fettle.types import Completion, Datum, ForwardResult, OptimResult, Tokens

LETTERS = 40
"""Ids that are surely those of letters begin here."""


class Instant:
    """A sampler and a policy that take no time."""

    policy_version = 0

    async def sampler(self) -> "Instant":
        """Itself."""
        return self

    async def sample(self, prompt: Tokens, n: int, params: SamplingParams) -> list[Completion]:
        """The same reply always."""
        drawn = [LETTERS + place % 26 for place in range(params.max_tokens)]
        return [Completion(list(drawn), [-1.0] * len(drawn), "stop", 0) for _ in range(n)]

    async def forward_backward(self, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Nothing is learned."""
        return ForwardResult(0.0, {}, [each.loss_mask for each in data], sum(int(d.loss_mask.sum()) for d in data))

    async def optim_step(self, optimizer: AdamW, **_: bool) -> OptimResult:
        """Nothing moves."""
        return OptimResult(1, 1.0)


def measured(*, groups: int = 32, repetitions: int = 5) -> dict[str, float]:
    """Seconds of the driver for a turn, for an episode that is over, and to write a token of a batch for the ranks."""
    return asyncio.run(_measured(groups, repetitions))


async def _measured(groups: int, repetitions: int) -> dict[str, float]:
    known = Known(groups=groups, group_size=8, turns=4, latency=0.0)
    episodes = known.groups * known.group_size
    model = models.folder("tiny", ends=None)
    template, instant = Template(load_tokenizer(model)), Instant()
    run = RLRun.model_validate(recipe(model, known, steps=1))
    nobody: Any = None  # who would be asked for other players: there are none
    players = Players(run, instant, template, engine=nobody, session=nobody, templates={})  # type: ignore[arg-type]
    drawer = Drawer(run, [Slow(known)], template, instant, players=players)  # type: ignore[arg-type]
    learner = Learner(run, instant)  # type: ignore[arg-type]
    turns: list[float] = []
    learned: list[float] = []
    written: list[float] = []
    for step in range(repetitions + 1):  # the first is a warm-up
        started = time.process_time()
        batch = await drawer.draw(step)
        turns.append((time.process_time() - started) / (episodes * known.turns))
        started = time.process_time()
        await learner.learn(step, batch)
        learned.append((time.process_time() - started) / episodes)
        data = [to_datum(trajectory) for each in batch.groups for trajectory in each.trajectories]
        started = time.process_time()
        pickle.dumps(data, protocol=5)
        written.append((time.process_time() - started) / sum(len(each.tokens) for each in data))
    found = {"driver_turn": turns, "driver_episode": learned, "driver_token": written}
    return {name: statistics.median(seconds[1:]) for name, seconds in found.items()}


def recipe(model: str, known: Known, *, steps: int, max_staleness: int = 0) -> dict[str, Any]:
    """GRPO of the tiny model on conversations; the environment that is named is not the one that is played."""
    never = 1_000_000
    return {
        "policy": {"model": model},
        "environments": [{"type": "arithmetic", "digits": 1, "heldout": 1}],
        "steps": steps,
        "groups_per_step": known.groups,
        "group_size": known.group_size,
        "max_staleness": max_staleness,
        "sampling": {"max_tokens": known.drawn},
        "loss": {"kl": None},
        "optimizer": {"learning_rate": 1e-7},
        "evaluation": {"every": never, "tasks": 1},
        "checkpoints": {"every": never},
    }
