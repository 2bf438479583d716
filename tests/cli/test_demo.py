"""``fettle demo``: what it is made of, on a run shrunk to seconds."""

import json
import sys

import pytest

from fettle.cli.demo import recipe, turned_right
from fettle.cli.recipes import shipped
from fettle.config import Arithmetic, Pipeline, ReasoningGym, leaves
from fettle.config.load import load, load_as

from .conftest import typed

TINY = [
    "stages.0.policy.model={type: tiny, hidden: 32, layers: 1, heads: 2}",
    "stages.0.data.tasks={type: arithmetic, digits: 1, heldout: 6, system: null}",
    "stages.1.environments=[{type: arithmetic, digits: 1, heldout: 6, system: null}]",
    "stages.0.data.size=64",
    "stages.0.steps=3",
    "stages.0.batch_size=8",
    "stages.1.steps=2",
    "stages.1.groups_per_step=2",
    "stages.1.sampling.max_tokens=8",
    "stages.1.evaluation.tasks=6",
]


@pytest.fixture
def without_gym(monkeypatch):
    """Nothing can import reasoning_gym."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)


def seeds(config) -> dict[str, int]:
    return {key: value for key, _, name, value in leaves(config) if name == "seed"}


def test_the_seed_goes_everywhere():
    found = seeds(recipe(5, []))
    assert len(found) == 8
    assert set(found.values()) == {5}
    assert {"stages.0.seed", "stages.0.policy.model.seed", "stages.0.data.seed", "stages.1.seed"} <= found.keys()


def test_a_seed_may_still_be_set_by_name():
    assert seeds(recipe(5, ["stages.1.seed=6"]))["stages.1.seed"] == 6


def test_but_for_the_seed_it_is_the_shipped_recipe():
    pytest.importorskip("reasoning_gym")
    assert recipe(0, []) == load(shipped("demo.yaml"))


@pytest.mark.parametrize("name", ["demo.yaml", "demo-arithmetic.yaml"])
def test_both_stages_hold_out_the_same_tasks(name):
    """Or the first stage would be shown what the second is scored on."""
    warm_up, grpo = load_as(Pipeline, shipped(name)).stages
    assert grpo.environments == (warm_up.data.tasks,)
    assert grpo.evaluation.tasks == warm_up.data.tasks.heldout


def test_it_asks_what_reasoning_gym_asks():
    pytest.importorskip("reasoning_gym")
    assert isinstance(recipe(0, []).stages[1].environments[0], ReasoningGym)


def test_without_reasoning_gym_it_asks_its_own_sums(without_gym):
    assert isinstance(recipe(0, []).stages[1].environments[0], Arithmetic)


def test_its_last_line_is_json_of_what_happened(fettle, desk):
    done = fettle("demo", "--json", "--seed", 3, *TINY)
    assert done.code == 0, done.err
    numbers = json.loads(done.out.splitlines()[-1])
    [folder] = (desk / "runs").iterdir()
    summary = json.loads((folder / "grpo" / "summary.json").read_text())
    assert numbers["reward_before"] == summary["first"]["heldout/reward"]
    assert numbers["reward_after"] == summary["last"]["heldout/reward"]
    assert numbers["ci"] == [summary["last"]["heldout/reward_low"], summary["last"]["heldout/reward_high"]]
    assert (numbers["steps"], numbers["seed"], numbers["run_dir"]) == (2, 3, f"runs/{folder.name}")
    assert numbers["seconds"] > 0
    assert numbers["tokens_per_s"] > 0


def test_it_ends_with_a_table_and_what_to_try_next(fettle, desk):
    done = fettle("demo", *TINY)
    [folder] = (desk / "runs").iterdir()
    for told in (
        "before",
        "after",
        "95 % interval",
        "s of learning from worked solutions, up to before\n",
        "s of reinforcement, up to after: 2 steps, ",
        f"The run folder: runs/{folder.name}",
        "Try next:",
    ):
        assert told in done.out
    commands = [line.strip() for line in done.out.splitlines() if line.startswith("  fettle ")]
    [evaluation] = [command.split()[1:] for command in commands if command.startswith("fettle eval ")]
    assert typed(*evaluation, into=desk).code == 0


def test_transcripts_are_of_tasks_that_went_from_wrong_to_right(tmp_path):
    def page(step: int, **rewards: float) -> None:
        rows = (
            {
                "task": task,
                "reward": reward,
                "messages": [
                    {"role": "user", "content": f"question {task}"},
                    {"role": "assistant", "content": f"said {reward}"},
                ],
            }
            for task, reward in rewards.items()
        )
        path = tmp_path / "evaluations" / f"step-{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    page(0, a=0.0, b=1.0, c=0.0, d=0.0, e=0.0, f=0.0)
    page(10, a=0.0, b=0.0, c=1.0, d=1.0)
    page(20, a=1.0, b=1.0, c=0.0, d=1.0, e=1.0, f=1.0)
    assert turned_right(tmp_path) == [
        f"  question {task}\n  before: said 0.0\n  after:  said 1.0" for task in ("a", "d", "e")
    ]
