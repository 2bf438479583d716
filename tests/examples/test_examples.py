"""Each example, run as a reader would run it; what takes minutes is run on a smaller recipe of the same name."""

import runpy
from pathlib import Path

import pytest

from fettle.config.load import dump, load

ROOT = Path(__file__).parent.parent.parent
SMALLER = [
    "stages.0.policy.model={type: tiny, hidden: 32, layers: 1, heads: 2}",
    "stages.0.data.size=64",
    "stages.0.steps=2",
    "stages.1.steps=2",
    "stages.1.groups_per_step=2",
    "stages.1.sampling.max_tokens=8",
]


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """What an example prints, run in a folder of its own."""

    def run(name: str) -> str:
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_is_run_here():
    assert {path.name for path in (ROOT / "examples").rglob("*.py")} == {"own_loop.py", "train.py"}


def test_own_loop_learns_to_say_e(printed):
    rewards = [float(line.split()[3]) for line in printed("own_loop.py").splitlines()]
    assert len(rewards) == 6
    assert rewards[0] < 0.1
    assert rewards[-1] > 0.5


def test_train_prints_each_stage(printed, tmp_path):
    recipe = load(ROOT / "configs" / "demo-arithmetic.yaml", SMALLER)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo-arithmetic.yaml").write_text(dump(recipe))
    warm_up, grpo = printed("train.py").splitlines()
    assert "/warm-up {'heldout/loss': " in warm_up
    assert "/grpo {'heldout/reward': " in grpo
    [folder] = (tmp_path / "runs").iterdir()
    assert load(folder / "config.yaml").stages[1].preset == "dr_grpo"
