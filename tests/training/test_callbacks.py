"""What ends a run early, to the step: patience, a target, a callback; and which checkpoint is then the best."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.config import Checkpoints, LocalEngine, PolicySpec, PreferenceRun
from fettle.engine.local import LocalBackend
from fettle.tracking import RunFolder
from fettle.training import Session

from .colours import painter, small, trained
from .conftest import Memory


async def ended_after(model: str, folder: Path, scores: Sequence[float], **stop_when) -> Session:
    """A session in which the weights after n steps earn ``scores[n]``; as it stands when it says that it is over."""
    place = RunFolder.at(folder)
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=place.checkpoints))
    session = Session(
        place, Memory(), checkpoints=Checkpoints(every=100, keep=1), steps=len(scores) - 1, stop=asyncio.Event()
    )
    session.stop_when(**stop_when)
    try:
        policy = await session.policy(engine, PolicySpec(model=model))
        for step, score in enumerate(scores):
            await session.evaluated(policy, step, score, {"heldout/score": score})
            if await session.finish_step(policy, step):
                break
    finally:
        engine.close()
    return session


@pytest.mark.parametrize(
    ("scores", "rules", "step", "best"),
    [
        ([0.1, 0.3, 0.2, 0.3, 0.25, 0.9], {"patience": 3}, 4, 3),
        ([0.1, 0.3, 0.2, 0.4, 0.25, 0.9], {"patience": 3}, 5, 5),
        ([0.1, 0.3, 0.2, 0.3, 0.25, 0.9], {"patience": 1}, 2, 1),
        ([3.0, 2.0, 2.5, 2.2, 1.0], {"patience": 2, "lower_is_better": True}, 3, 1),
        ([0.1, 0.3, 0.7, 0.9, 1.0], {"patience": None, "target": 0.7}, 2, 2),
        ([0.5, 0.2, 0.1, 0.05], {"patience": None}, 3, 0),
    ],
)
async def test_it_ends_exactly_where_it_should_and_the_best_checkpoint_is_the_best_by_score(
    tiny, tmp_path, scores, rules, step, best
):
    """T8."""
    session = await ended_after(tiny, tmp_path, scores, **rules)
    summary = session.summary()
    assert summary.steps == step
    assert list(session.remaining) == []
    assert Path(summary.best_checkpoint).name == f"step-{best:06d}"
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {f"step-{n:06d}" for n in {step, best}}


@dataclass
class Watch:
    """Satisfies ``Callback``: remembers what it is told, and ends the run at the steps it is given."""

    at_steps: frozenset[int] = frozenset()
    at_evaluations: frozenset[int] = frozenset()
    told: list[tuple[str, int]] = field(default_factory=list)
    rows: list[Mapping[str, float]] = field(default_factory=list)

    def after_step(self, step: int, row: Mapping[str, float]) -> bool:
        self.told.append(("step", step))
        self.rows.append(row)
        return step in self.at_steps

    def after_evaluation(self, step: int, score: float, row: Mapping[str, float]) -> bool:
        self.told.append(("evaluation", step))
        assert score == row["heldout/accuracy"]
        return step in self.at_evaluations


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return painter(tmp_path_factory.mktemp("models") / "painter", layers=1)


def run_of(model: str, **settings) -> PreferenceRun:
    return small(PreferenceRun, model, steps=6, evaluation={"every": 2}, checkpoints={"every": 50}, **settings)


async def test_a_callback_is_told_of_every_step_and_evaluation_in_order(model, tmp_path):
    watch = Watch()
    done = await trained(run_of(model), tmp_path, callbacks=[watch])
    steps = [("step", n) for n in range(1, 7)]
    expected = [("evaluation", 0), *steps[:2], ("evaluation", 2), *steps[2:4], ("evaluation", 4), *steps[4:]]
    assert watch.told == [*expected, ("evaluation", 6)]
    assert [row["loss"] for row in watch.rows] == done.memory.column("loss")


@pytest.mark.parametrize(
    ("first", "steps"), [(Watch(at_steps=frozenset({3})), 3), (Watch(at_evaluations=frozenset({4})), 4)]
)
async def test_a_callback_ends_the_run_after_its_step_with_a_checkpoint(model, tmp_path, first, steps):
    second = Watch()
    done = await trained(run_of(model), tmp_path, callbacks=[first, second])
    assert done.summary.steps == steps
    assert Path(done.summary.checkpoint).name == f"step-{steps:06d}"
    assert f"step-{steps:06d}" in {path.name for path in done.folder.checkpoints.iterdir()}
    assert second.told == first.told  # whoever comes after the one that ends it is still told


async def test_a_run_that_a_callback_ended_stays_ended(model, tmp_path):
    await trained(run_of(model), tmp_path, callbacks=[Watch(at_steps=frozenset({3}))])
    watch = Watch()
    again = await trained(run_of(model), tmp_path, callbacks=[watch])
    assert again.summary.steps == 3
    assert watch.told == []
