"""Look-ahead: bounded, reached, in order, and never past a checkpoint."""

import asyncio
import random
from collections.abc import Callable

import pytest

from fettle.rollouts.stream import stream


class Trainer:
    """Counts its updates; each batch remembers how many there had been when it began to be drawn."""

    def __init__(self, late: Callable[[], int] = lambda: 1) -> None:
        self.version = 0
        self.begun: list[int] = []
        self._late = late
        """For how many turns of the loop whatever is asked next keeps others waiting."""

    async def draw(self, step: int) -> int:
        self.begun.append(step)
        version = self.version
        await self._waited()
        return version

    async def _waited(self) -> None:
        for _ in range(self._late()):
            await asyncio.sleep(0)

    async def train(self, steps: int, *, ahead: int, barriers=()) -> list[int]:
        lags = []
        async for step, version in stream(range(steps), self.draw, ahead=ahead, barriers=barriers):
            assert step == self.version
            lags.append(self.version - version)
            await self._waited()
            self.version += 1
        return lags


@pytest.mark.parametrize("ahead", [0, 1, 3])
async def test_staleness_is_bounded_and_reached(ahead):
    lags = await Trainer().train(10, ahead=ahead)
    assert max(lags) == ahead
    assert lags[-1] == ahead


@pytest.mark.parametrize("seed", range(4))
async def test_no_delay_makes_a_batch_older_than_may_be_nor_is_one_lost_or_drawn_twice(seed):
    """400 steps, of which now the drawing is late and now the training, with checkpoints anywhere."""
    rng = random.Random(seed)
    trainer = Trainer(lambda: int(rng.expovariate(0.5)))
    barriers = set(rng.sample(range(400), 20))
    lags = await trainer.train(400, ahead=seed, barriers=barriers)
    assert max(lags) == seed
    assert all(lags[step + 1] == 0 for step in barriers if step < 399)
    assert trainer.begun == list(range(400))


async def test_drawing_never_passes_a_checkpoint():
    """After steps 2 and 5 there is a checkpoint: the batches after them are drawn from the weights it holds."""
    assert await Trainer().train(9, ahead=2, barriers={2, 5}) == [0, 1, 2, 0, 1, 2, 0, 1, 2]


async def test_resuming_at_a_checkpoint_draws_what_the_straight_run_drew():
    straight = (await Trainer().train(9, ahead=2, barriers={2, 5}))[6:]
    resumed, lags = Trainer(), []
    resumed.version = 6
    async for _, version in stream(range(6, 9), resumed.draw, ahead=2, barriers={2, 5}):
        lags.append(resumed.version - version)
        resumed.version += 1
    assert lags == straight


async def test_an_end_in_the_middle_leaves_nothing_running():
    trainer = Trainer()
    batches = stream(range(9), trainer.draw, ahead=3)
    async for step, _ in batches:
        if step == 1:
            break
    await batches.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_a_fault_while_drawing_reaches_the_trainer():
    async def draw(step: int) -> int:
        if step == 2:
            raise ValueError("no more tasks")
        return step

    seen = []

    async def train() -> None:
        async for step, _ in stream(range(5), draw, ahead=1):
            seen.append(step)

    with pytest.raises(ValueError, match="no more tasks"):
        await train()
    assert seen == [0, 1]
