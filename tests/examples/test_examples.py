"""Each example, run as a reader would run it; what takes minutes is run on a smaller recipe of the same name."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from fettle.cli.train import new_run
from fettle.config import TinyModel
from fettle.config.load import dump, load
from fettle.engine.local import make_tiny_model
from fettle.tracking import read_metrics
from fettle.types import Message, Task
from tests.service.served import serving

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
    run_elsewhere = {"tinker_rl.py", "tinker_sft.py"}  # by the tests of their protocol
    assert {path.name for path in (ROOT / "examples").rglob("*.py")} - run_elsewhere == {
        "own_loop.py",
        "own_reward.py",
        "service_client.py",
        "simple_ppo.py",
        "train.py",
    }


def test_own_loop_learns_to_say_e(printed):
    before, *lines, after = printed("own_loop.py").splitlines()
    rewards = [float(line.split()[3]) for line in lines]
    assert len(rewards) == 6
    assert before.startswith("before: ")
    assert after.startswith("after: ")
    assert before.count("e") < after.count("e")
    assert rewards[0] < 0.1
    assert rewards[-1] > 0.5


def test_the_client_of_a_service_teaches_it_a_sentence(printed, tmp_path, monkeypatch):
    model = make_tiny_model(TinyModel(hidden=64, layers=1, heads=2), tmp_path / "tiny", texts=["a letter from you"] * 9)
    with serving(tmp_path / "state", model) as service:
        monkeypatch.setattr(sys, "argv", ["service_client.py", service.url, service.key])
        losses, said, saved, copied = printed("service_client.py").splitlines()
    first, last = (float(part.split()[-1]) for part in losses.split(","))
    assert last < first / 4
    assert said.endswith("a look at the letter that came today, and it was from you.")
    assert saved.startswith("saved fettle://run_")
    copy = Path(copied.split()[-1])
    assert copy.name == saved.split("/")[2], "the run's own folder, so that the example can be run again"
    assert (copy / "manifest.json").is_file()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_quick_start_learns_to_be_a_polite_waiter(printed):
    *lines, ends = printed("quickstart/simple_ppo.py").splitlines()
    assert len(lines) == 8
    before, after = (float(part.split()[-1]) for part in ends.split(","))
    assert before < 0.1
    assert after > 0.5


def test_own_reward_pays_for_the_tone_of_the_row():
    example = runpy.run_path(str(ROOT / "examples" / "own_reward.py"))
    task = Task((Message("user", "Begin a letter."),), {"answer": "formal", "longest": 20}, "letters")
    for reply, paid in (
        ("Dear Sir or Madam,", {"tone": 1.0, "short": 0.1}),
        ("To whom it may concern,", {"tone": 1.0, "short": 0.0}),
        ("Hi there!", {"tone": 0.0, "short": 0.1}),
    ):
        assert example["tone"](reply, task) == paid


def test_own_reward_writes_what_its_recipe_reads(printed, tmp_path, monkeypatch):
    assert "next: fettle train configs/own-reward.yaml" in printed("own_reward.py")
    monkeypatch.syspath_prepend(ROOT)
    smaller = ["stages.0.steps=2", "stages.1.steps=2", "stages.1.groups_per_step=2"]
    _, [_, learned] = new_run(tmp_path / "runs", load(ROOT / "configs" / "own-reward.yaml", smaller))
    assert learned.last["heldout/reward"] >= 0
    row = read_metrics(learned.folder / "metrics.jsonl")[1]
    assert {"reward/component/tone", "reward/component/short"} <= row.keys()
    asked = {json.loads(line)["prompt"] for line in Path("data/letters.jsonl").read_text().splitlines()}
    shown = {json.loads(line)["prompt"] for line in Path("data/greetings.jsonl").read_text().splitlines()}
    assert not asked & shown


def test_train_prints_each_stage(printed, tmp_path):
    recipe = load(ROOT / "configs" / "demo-arithmetic.yaml", SMALLER)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo-arithmetic.yaml").write_text(dump(recipe))
    warm_up, grpo = printed("train.py").splitlines()
    assert "/warm-up {'heldout/loss': " in warm_up
    assert "/grpo {'heldout/reward': " in grpo
    [folder] = (tmp_path / "runs").iterdir()
    assert load(folder / "config.yaml").stages[1].preset == "dr_grpo"
