"""A recipe carried out from Python, as the README shows it."""

from dataclasses import dataclass, field
from pathlib import Path

from fettle.cli import build
from fettle.config import Arithmetic, HeldoutLoss, PolicySpec, SFTRun, TinyModel, WorkedSums

TINY = PolicySpec(model=TinyModel(hidden=32, layers=1, heads=2))


@dataclass
class Enough:
    """Satisfies ``Callback``: ends a run after its second step."""

    steps: list[int] = field(default_factory=list)

    def after_step(self, step: int, row: object) -> bool:
        self.steps.append(step)
        return step == 2

    def after_evaluation(self, step: int, score: float, row: object) -> bool:
        return False


async def test_a_callback_is_told_of_the_steps_of_a_recipe_and_ends_it(tmp_path: Path):
    data = WorkedSums(tasks=Arithmetic(digits=1, heldout=10), size=40)
    recipe = SFTRun(policy=TINY, data=data, steps=6, batch_size=4, evaluation=HeldoutLoss(every=6))
    enough = Enough()
    folder = build.new_folder(tmp_path, recipe)
    (summary,) = await build.run(recipe, folder, callbacks=[enough])
    assert enough.steps == [1, 2]
    assert summary.steps == 2
    assert Path(summary.checkpoint).name == "step-000002"
